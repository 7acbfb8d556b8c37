"""The part of ``prove.py`` about several servers: golden cases, sweep, schedules, window, traffic."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from .arguments import Parameters
from .cards import Wire
from .golden_programs import GoldenProgram, mesh_golden_cases, server_golden_cases
from .server_cases import HEADS, reached, what_notices
from .server_kernels import KERNELS
from .server_programs import ServerShape, server_program
from .servers import execute_on_servers
from .simulator import Schedule, library
from .tally import Tally, chunks

DEPTHS = (4, 8, 16, 128)
GOLDEN = {"hierarchy": server_golden_cases, "mesh": mesh_golden_cases}


def run_server_golden(schedules: int, kernels: str = "hierarchy") -> Tally:
    """The stored cases, each under several schedules."""
    tally = Tally()
    for case in GOLDEN[kernels]():
        program, problems = GoldenProgram(case), []
        for seed in range(schedules):
            schedule = Schedule(seed=seed, uneven=seed % 2 == 1)
            problems += program.problems_on_servers(schedule, cores=(3, 8, 1)[seed % 3])
        tally.add(case.name, problems)
    return tally


def run_server_sweep(seeds: range, kernels: str = "hierarchy") -> Tally:
    """Random programs against the oracle."""
    tally, of = Tally(), KERNELS[kernels]
    for seed in seeds:
        random = Random(seed)
        shape = of.random_shape(random)
        order = random.choice(("dc", "dcdc", "ddoc", "dcc"))
        program = of.program(f"{kernels} {seed} {shape}", shape, seed, order)
        outcome = execute_on_servers(
            program,
            Schedule(
                seed=seed, uneven=random.random() < 0.5, landing_percent=random.choice((3, 30, 70))
            ),
            cores=random.choice((1, 2, 3, 5, 9)),
            wire=Wire(depth=random.choice(DEPTHS), head=random.choice(HEADS)),
            offset=random.choice((0, 0, 1, 8, 13)),
            group_type=of.group_type,
        )
        tally.add(program.name, outcome.problems)
    return tally


@cache
def server_schedule_programs(kernels: str) -> list[Any]:
    """One for each shape of these kernels."""
    of = KERNELS[kernels]
    return [
        of.program(f"{kernels} schedule {index}", shape, index, order)
        for index, (shape, _, order) in enumerate(of.schedules)
    ]


def run_server_schedules(seeds: range, kernels: str = "hierarchy") -> Tally:
    """Schedules of the kernels' shapes in turn: uneven ranks and cores, a stalled relay, old epochs in the windows.

    Queues are of any depth and start anywhere. How a card cuts messages (64 bytes to 4096), its bursts and its late
    tails follow from the seed.
    """
    tally, of, programs = Tally(), KERNELS[kernels], server_schedule_programs(kernels)
    for seed in seeds:
        index = seed % len(programs)
        program, random = programs[index], Random(seed)
        most = of.schedules[index][1]
        schedule = Schedule(
            seed=seed,
            landing_percent=random.choice((1, 5, 30, 70, 95)),
            uneven=random.random() < 0.7,
            stalled_rank=random.choice((-1, random.randrange(program.ranks))),
            stall_from=random.choice((0, random.randrange(10_000))),
            stall_steps=random.choice((500, 3000, 10_000)),
        )
        problems = execute_on_servers(
            program,
            schedule,
            cores=[random.randint(1, most) for _ in range(program.ranks)],
            wire=Wire(depth=random.choice(DEPTHS), head=random.choice(HEADS)),
            group_type=of.group_type,
        ).problems
        tally.add(f"{program.name} seed {seed}", problems)
    return tally


def stock_window_bytes(p: Parameters, servers: int) -> int:
    """What the stock A2 kernels ask for: F7 of docs/buffer-size.md."""
    block = p.max_batch * (2 * p.hidden + 16 * (-(-p.topk // 8) * 8))
    return (-(-block // 512) * 512) * (p.moe_experts + 2 * servers) + (8 << 20)


@dataclass(frozen=True)
class WindowCase:
    """A group of A2 and how its window compares with the stock kernels'."""

    servers: int
    local_experts: int
    topk: int
    max_batch: int
    hidden: int
    ours: int
    stock: int


def window_cases() -> Iterator[WindowCase]:
    """A grid of legal groups of A2, unquantised, which need most."""
    lib = library()
    for servers in (2, 4, 8):
        for local_experts in (1, 2, 3, 4, 8, 16):
            for topk in (1, 2, 4, 5, 6, 8, 9, 12, 14, 16):
                for max_batch, hidden in (
                    (1, 7168),
                    (16, 2048),
                    (64, 7168),
                    (256, 7168),
                    (512, 10240),
                ):
                    moe = servers * 8 * local_experts
                    if topk > moe or moe > 512:
                        continue
                    p = Parameters(
                        max_batch=max_batch,
                        hidden=hidden,
                        topk=topk,
                        moe_experts=moe,
                        local_experts=local_experts,
                    )
                    sizes = (ctypes.byref(p), servers, 8)
                    ours = lib.moe_hierarchy_window_bytes(
                        lib.moe_hierarchy_dispatch_bytes(*sizes),
                        lib.moe_hierarchy_combine_bytes(*sizes),
                    )
                    yield WindowCase(
                        *(servers, local_experts, topk, max_batch, hidden),
                        ours,
                        stock_window_bytes(p, servers),
                    )


def traffic(servers: int) -> dict[str, dict[str, float]]:
    """Of a layer (BS 16, H 7168, K 8, 32 experts a server, bf16), per rank: MB of memory, messages, MB on the wire."""
    shape = ServerShape(
        ranks=8 * servers, max_batch=16, hidden=7168, topk=8, local_experts=4, product="A2"
    )
    program = server_program("traffic", shape, 0)
    outcome = execute_on_servers(program, Schedule(seed=0), cores=8, wire=Wire(depth=128))
    if outcome.problems:
        raise AssertionError(outcome.problems[0])
    moved = ("read_own", "read_remote", "write_own", "write_remote", "scalar_read", "scalar_write")
    found = {}
    for step, counters in zip(program.steps, outcome.counters, strict=True):
        ranks = len(counters)
        found[step.op] = {
            "memory_mb": round(sum(c[name] for c in counters for name in moved) / ranks / 1e6, 3),
            "posts": round(sum(c["messages"] for c in counters) / ranks, 2),
            "wire_mb": round(sum(c["message_bytes"] for c in counters) / ranks / 1e6, 3),
            "vendor_posts": round(_vendor_posts(program), 2),
        }
    return found


def _vendor_posts(program: Any) -> float:
    """What its kernels post: one message for each token and server, and two flags (dispatch; combine one)."""
    calls = program.steps[0].calls
    servers = len(calls) // 8
    experts = calls[0]["moe_expert_num"] // servers
    posts = 0
    for rank, call in enumerate(calls):
        of = call["expert_ids"] // experts
        for server in range(servers):
            if server != rank // 8:
                posts += 2 + int((of == server).any(dim=1).sum())
    return posts / len(calls)


class ServerProof:
    """Its parts, started in a pool and then waited for."""

    def __init__(self, pool: Executor, *, quick: bool) -> None:
        self._sweep, self._schedules = (20, 80) if quick else (200, 5_000)
        self._servers = (2,) if quick else (2, 4)
        self._golden = pool.submit(run_server_golden, 1 if quick else 3)
        self._swept = [pool.submit(run_server_sweep, seeds) for seeds in chunks(self._sweep, 20)]
        self._scheduled = [
            pool.submit(run_server_schedules, seeds) for seeds in chunks(self._schedules, 50)
        ]
        self._sites = sorted(reached())
        self._noticed = [pool.submit(what_notices, site) for site in self._sites]

    def figures(self, done: Callable[[str, Tally | None], None]) -> tuple[dict[str, Any], bool]:
        """For the record, and whether nothing was found."""
        golden, total = self._golden.result(), len(server_golden_cases())
        done(f"servers, golden: {golden.passed} of {total} bit-exact", golden)
        swept = sum((run.result() for run in self._swept), Tally())
        done(f"servers, sweep: {swept.passed} of {self._sweep} equal to the oracle", swept)
        scheduled = sum((run.result() for run in self._scheduled), Tally())
        done(
            f"servers, schedules: {scheduled.passed} of {self._schedules}"
            " without finding, deadlock or difference",
            scheduled,
        )
        noticed = zip(self._sites, self._noticed, strict=True)
        survivors = [site for site, how in noticed if not how.result()]
        number = len(self._sites)
        done(f"servers, mutants: {number - len(survivors)} of {number} noticed", None)
        for site in survivors:
            print(f"  not noticed: {site}")
        moved = {str(servers): traffic(servers) for servers in self._servers}
        for servers, of_servers in moved.items():
            for op, of_op in of_servers.items():
                done(f"{servers} servers, {op}: {of_op}", None)
        grid = list(window_cases())
        larger = sum(case.ours > case.stock for case in grid)
        done(f"servers, window: above the stock formula in {larger} of {len(grid)}", None)
        everything = golden + swept + scheduled
        return {
            "golden_passed": golden.passed,
            "golden_total": total,
            "sweep_cases": self._sweep,
            "schedules": self._schedules,
            "findings": everything.findings,
            "deadlocks": everything.deadlocks,
            "mutations_caught": number - len(survivors),
            "mutations_total": number,
            "traffic": moved,
            "windows": len(grid),
            "windows_above_stock": larger,
        }, not everything.examples
