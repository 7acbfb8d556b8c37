"""Faults among CPU ranks, for as long as one likes: ``scripts/attack --minutes 10``; counts are its result.

A round is a world of ranks that dispatch and combine without pause, one transport, and one fault at a random moment of
one rank, the victim:

* ``kill``       its process is killed; this is told long before the time limit
* ``stop``       its process is stopped for longer than the time limit, and goes on then
* ``interrupt``  a signal handler raises in the middle of whatever it does
* ``refuse``     it makes an illegal call

What must hold: no call returns a wrong row or ends a process; every other rank gets a PeerError that names the victim
and nobody else within the time limit, and no rows from then on; after a refusal, a ConstraintError, and the group goes
on. Nothing is left behind. After the rounds, a soak: random calls (`cpu_stress`), and the memory of its ranks.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # torch_npu without CANN

sys.path.insert(0, str(Path(__file__).resolve().parent))

import small_calls
import worlds
from cpu_stress import stress

from ascend_moe.contract.errors import ConstraintError, PeerError
from ascend_moe.reference import combine_world, dispatch_world

KINDS = ("kill", "stop", "interrupt", "refuse")
WAYS: dict[str, dict[str, str]] = {"windows": {}, "distributed": worlds.DISTRIBUTED}
LIMIT_S = 3.0
"""The time limit of the ranks; their errors must come within it and GRACE_S."""
GRACE_S = 4.0
SOAK_STEP_S = 20.0


class Interrupt(BaseException):
    """What the signal handler raises."""


class Signal:
    """Raises where the victim makes calls; one that comes before waits until then."""

    armed = came = False

    @classmethod
    def handle(cls, *_: object) -> None:
        cls.came = True
        if cls.armed:
            raise Interrupt

    @classmethod
    def arm(cls) -> None:
        cls.armed = True
        if cls.came:
            raise Interrupt


def _pair(rank: int, calls: list[Any], wanted: list[Any], back: list[Any], sums: list[Any]) -> None:
    outputs = worlds.dispatch(rank, calls)
    assert all(map(lambda one, two: one.equal(two), outputs, wanted[rank])), "wrong rows"
    assert worlds.combine(rank, back).equal(sums[rank]), "wrong sums"


def attacked(rank: int, size: int, seed: int, refuses: int) -> dict[str, Any]:
    """Calls until one fails, and a few more; refuses: the victim makes its call of this number illegally, -1: never."""
    warnings.simplefilter("ignore")
    calls = small_calls.make_calls(size, seed=seed)
    wanted = dispatch_world(calls)
    back = small_calls.homeward(calls, wanted)
    world = calls, wanted, back, combine_world(back)
    made = 0
    try:
        Signal.arm()
        while made != refuses or rank != seed % size:
            _pair(rank, *world)
            made += 1
        illegal = dict(calls[rank], x=calls[rank]["x"].double())
        worlds.dispatch(rank, [illegal] * size)
    except BaseException as error:
        found, when = error, time.time()
    later = [_outcome(rank, world) for _ in range(3)]
    return {"made": made, "found": found, "when": when, "later": later}


def _outcome(rank: int, world: Any) -> Any:
    try:
        _pair(rank, *world)
    except Exception as error:
        return error
    return "right"


def attack(kind: str, way: str, seed: int) -> tuple[int, list[str], float]:
    """One round: how many pairs were right, what was not as it must be, and after how long the last rank was told."""
    draw = random.Random(seed)
    size, delay = draw.choice((2, 3, 4)), draw.uniform(0.0, 0.4)
    victim = seed % size
    refuses = draw.randrange(20) if kind == "refuse" else -1
    environment = WAYS[way] | {"ASCEND_MOE_TIMEOUT_S": str(LIMIT_S)}
    with worlds.world(size, environments=[environment]) as world:
        pid, struck = world.processes[victim].pid, [time.time()]

        def strike() -> None:
            time.sleep(delay)
            struck[0] = time.time()
            number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGUSR1}
            os.kill(pid, number[kind])
            if kind == "stop":
                time.sleep(LIMIT_S + GRACE_S)
                os.kill(pid, signal.SIGCONT)

        striker = threading.Thread(target=strike)
        world.run(_ready)
        if kind != "refuse":
            striker.start()
        outcomes = world.outcomes(attacked, size, seed, refuses, timeout=60)
        if kind != "refuse":
            striker.join()
    wrong = [
        f"rank {rank}: {text}"
        for rank, outcome in enumerate(outcomes)
        for text in _judge(kind, rank, victim, outcome, struck[0])
    ]
    answers = {rank: one for rank, one in enumerate(outcomes) if isinstance(one, dict)}
    pairs = sum(one["made"] for one in answers.values())
    told = [one["when"] - struck[0] for rank, one in answers.items() if rank != victim]
    return pairs, wrong, max(told, default=0.0)


def _ready(rank: int) -> None:
    """A rank that answers has its group."""
    signal.signal(signal.SIGUSR1, Signal.handle)


def _judge(kind: str, rank: int, victim: int, outcome: Any, struck: float) -> list[str]:
    if not isinstance(outcome, dict):
        return [] if kind == "kill" and rank == victim else [f"ended with {outcome!r}"]
    found, later = outcome["found"], outcome["later"]
    if any(isinstance(one, AssertionError) for one in (found, *later)):
        return [f"{found!r}, later {later}"]
    if kind == "refuse":
        right = isinstance(found, ConstraintError) and later == ["right"] * 3
        return [] if right else [f"{found!r}, later {later}"]
    wrong = []
    if kind == "interrupt" and isinstance(found, Interrupt | ConstraintError):
        # Between two calls: nobody else knows of it, and the victim's next call is another operator than its peers'.
        errors = [one for one in later if one != "right"]
        told = all(isinstance(one, PeerError | ConstraintError) for one in errors)
        return [] if told else [f"{found!r}, later {later}"]
    if not all(isinstance(one, PeerError) for one in later):
        wrong.append(f"rows after {found!r}: {later}")
    if rank == victim:
        return wrong
    if not isinstance(found, PeerError) or found.ranks != (victim,):
        wrong.append(f"{found!r} does not name rank {victim} alone")
    if outcome["when"] - struck > (LIMIT_S if kind == "kill" else LIMIT_S + GRACE_S):
        wrong.append(f"told {outcome['when'] - struck:.1f} s after the fault")
    return wrong


def left_behind() -> dict[str, Any]:
    """What rounds must give back."""
    gc.collect()
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "shared memory": sorted(one.name for one in Path("/dev/shm").iterdir()),
    }


def soak(seconds: float) -> tuple[int, list[float]]:
    """Random calls on three ranks: how many, and the megabytes of all ranks after each step."""
    calls: list[int] = []
    memory: list[float] = []
    with worlds.world(3) as world:  # in one go: groups stay until their ranks end
        run = threading.Thread(
            target=lambda: calls.extend(world.run(stress, 3, seconds, 0, timeout=seconds + 120))
        )
        run.start()
        while run.is_alive():
            run.join(SOAK_STEP_S)
            memory.append(sum(_megabytes(one.pid) for one in world.processes))
    return calls[0], memory


def _megabytes(pid: int | None) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> int:
    """Prints the counts; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(
        prog="scripts/attack", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="of rounds (default 1)")
    parser.add_argument("--rounds", type=int, help="so many instead")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of faults")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of the rows")
    parser.add_argument("--soak-minutes", type=float, default=0.0, help="after them (default 0)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default 1)")
    given = parser.parse_args()
    before, end = left_behind(), time.monotonic() + 60 * given.minutes
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    slowest: dict[str, float] = {}
    ways = [(kind, way) for kind in given.kinds for way in given.ways]
    while time.monotonic() < end if given.rounds is None else counts["rounds"] < given.rounds:
        seed = given.seed + counts["rounds"]
        kind, way = ways[seed % len(ways)]
        pairs, found, told = attack(kind, way, seed // len(ways))
        if kind in ("kill", "stop"):
            name = f"{kind} over {way}"
            slowest[name] = max(round(told, 2), slowest.get(name, 0.0))
        wrong += [f"{kind} over {way}, round {seed}: {text}" for text in found]
        counts.update({"rounds": 1, "pairs": pairs, f"{kind} over {way}": 1})
    after = left_behind()
    wrong += [
        f"left behind: {name} {before[name]} -> {after[name]}"
        for name in before
        if before[name] != after[name]
    ]
    report: dict[str, Any] = {**counts, "told after s": slowest, "wrong": wrong}
    if given.soak_minutes:
        report["soak calls"], report["soak MB"] = soak(60 * given.soak_minutes)
    print(json.dumps(report, indent=2))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
