"""The part of ``prove.py`` about several servers: golden cases, sweep, schedules, window, traffic."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from typing import Any

from .arguments import Parameters
from .cards import Wire
from .golden_programs import GoldenProgram, mesh_golden_cases, server_golden_cases
from .server_cases import HEADS, reached, reopened, what_notices
from .server_kernels import KERNELS
from .server_programs import ServerShape
from .servers import execute_on_servers
from .simulator import Schedule, library
from .tally import Tally, chunks
from .variants import NO_COPIES, variant

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


def run_reopened(seeds: range, kernels: str = "hierarchy") -> Tally:
    """A second context behind messages of the first one: ``reopened.py``."""
    tally, case = Tally(), reopened(kernels)
    for seed in seeds:
        schedule = Schedule(seed=seed, landing_percent=(3, 30, 70)[seed % 3], uneven=seed % 2 == 0)
        tally.add(f"{case.program.name} seed {seed}", case.run(schedule).problems)
    return tally


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


def window_cases(kernels: str = "hierarchy") -> Iterator[WindowCase]:
    """A grid of legal groups of A2, unquantised, which need most."""
    lib, of = library(), KERNELS[kernels]
    sizes = [(1, 7168), (16, 2048), (64, 7168), (256, 7168), of.edge]
    topks = (1, 2, 4, 5, 6, 8, 9, 12, 14, 16)
    for servers, local_experts, topk, (max_batch, hidden) in product(
        (2, 4, 8, 32), (1, 2, 3, 4, 8, 16), topks, sizes
    ):
        p = Parameters(
            max_batch=max_batch,
            hidden=hidden,
            topk=topk,
            moe_experts=servers * 8 * local_experts,
            local_experts=local_experts,
        )
        if topk > p.moe_experts or p.moe_experts > of.most_experts or servers > of.most_servers:
            continue
        given = (ctypes.byref(p), servers, 8)
        ours = getattr(lib, f"moe_{kernels}_window_bytes")(
            *(getattr(lib, f"moe_{kernels}_{op}_bytes")(*given) for op in ("dispatch", "combine"))
        )
        stock = of.stock_window(p, servers)
        yield WindowCase(servers, local_experts, topk, max_batch, hidden, ours, stock)


def traffic(servers: int, kernels: str = "hierarchy") -> dict[str, dict[str, float]]:
    """Of a layer (BS 16, H 7168, K 8, 32 experts a server, bf16), per rank: MB of memory, messages, MB on the wire."""
    of = KERNELS[kernels]
    shape = ServerShape(
        ranks=8 * servers, max_batch=16, hidden=7168, topk=8, local_experts=4, product="A2"
    )
    program = of.program("traffic", shape, 0)
    outcome = execute_on_servers(
        program, Schedule(seed=0), cores=8, wire=Wire(depth=128), group_type=of.group_type
    )
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
            "vendor_posts": round(of.vendor_posts(program), 2),
        }
    return found


def run_without_copies(sweep: int, schedules: int) -> Tally:
    """Hierarchy with the build switch the other way: the relay copies nothing."""
    with variant(NO_COPIES):
        tally = run_server_golden(1) + run_server_sweep(range(sweep))
        return tally + run_server_schedules(range(schedules))


class ServerProof:
    """Its parts, started in a pool and then waited for."""

    def __init__(self, pool: Executor, kernels: str, *, quick: bool) -> None:
        self._kernels = kernels
        self._sweep, self._schedules = (20, 80) if quick else (200, 5_000)
        self._reopenings = 20 if quick else 500
        self._servers = (2,) if quick else (2, 4)
        self._golden = pool.submit(run_server_golden, 1 if quick else 3, kernels)
        self._swept = [
            pool.submit(run_server_sweep, seeds, kernels) for seeds in chunks(self._sweep, 20)
        ]
        self._scheduled = [
            pool.submit(run_server_schedules, seeds, kernels)
            for seeds in chunks(self._schedules, 50)
        ]
        self._reopened = [
            pool.submit(run_reopened, seeds, kernels) for seeds in chunks(self._reopenings, 100)
        ]
        self._sites = sorted(reached(kernels))
        self._noticed = [pool.submit(what_notices, site) for site in self._sites]

    def figures(self, done: Callable[[str, Tally | None], None]) -> tuple[dict[str, Any], bool]:
        """For the record, and whether nothing was found."""
        golden, total = self._golden.result(), len(GOLDEN[self._kernels]())
        done(f"{self._kernels}, golden: {golden.passed} of {total} bit-exact", golden)
        swept = sum((run.result() for run in self._swept), Tally())
        done(f"{self._kernels}, sweep: {swept.passed} of {self._sweep} equal to the oracle", swept)
        scheduled = sum((run.result() for run in self._scheduled), Tally())
        done(
            f"{self._kernels}, schedules: {scheduled.passed} of {self._schedules}"
            " without finding, deadlock or difference",
            scheduled,
        )
        again = sum((run.result() for run in self._reopened), Tally())
        done(
            f"{self._kernels}, opened again: {again.passed} of {self._reopenings} with messages of"
            " the context before under way",
            again,
        )
        noticed = zip(self._sites, self._noticed, strict=True)
        survivors = [site for site, how in noticed if not how.result()]
        number = len(self._sites)
        done(f"{self._kernels}, mutants: {number - len(survivors)} of {number} noticed", None)
        for site in survivors:
            print(f"  not noticed: {site}")
        moved = {str(servers): traffic(servers, self._kernels) for servers in self._servers}
        for servers, of_servers in moved.items():
            for op, of_op in of_servers.items():
                done(f"{self._kernels}, {servers} servers, {op}: {of_op}", None)
        grid = list(window_cases(self._kernels))
        larger = sum(case.ours > case.stock for case in grid)
        done(f"{self._kernels}, window: above the stock formula in {larger} of {len(grid)}", None)
        everything = golden + swept + scheduled + again
        return {
            "golden_passed": golden.passed,
            "golden_total": total,
            "sweep_cases": self._sweep,
            "schedules": self._schedules,
            "opened_again": self._reopenings,
            "findings": everything.findings,
            "deadlocks": everything.deadlocks,
            "mutations_caught": number - len(survivors),
            "mutations_total": number,
            "traffic": moved,
            "windows": len(grid),
            "windows_above_stock": larger,
        }, not everything.examples
