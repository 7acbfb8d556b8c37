"""The CPU operators beside a plain implementation over gloo: medians, ratios, and the distance to the floor.

Both run in the same processes and are sampled in turn, on three routings in turn; a sample is the time from the first
rank's begin to the last rank's end of several calls. Each result is compared with the oracle before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ascend_moe.bootstrap import import_torch

import_torch()

import torch  # noqa: E402

import ascend_moe  # noqa: E402
from ascend_moe.cpu.transport import CHOICES  # noqa: E402
from ascend_moe.cpu.transport import VARIABLE as TRANSPORT  # noqa: E402
from scripts.benchmarks.cpu.cases import CASES, OPS, ROUTINGS, Case, Routing  # noqa: E402
from scripts.benchmarks.cpu.floor import Floor  # noqa: E402
from scripts.benchmarks.cpu.ranks import VARIANTS, RankFailed, Ranks  # noqa: E402
from scripts.benchmarks.cpu.report import Cell, as_json, chart, table  # noqa: E402

WORLDS = (2, 4, 8, 16)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; exits with 2 on wrong ones."""
    parser = argparse.ArgumentParser(prog="scripts/bench cpu", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--worlds", nargs="+", type=int, default=list(WORLDS), metavar="RANKS")
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS))
    parser.add_argument("--inner", type=_count, default=5, help="calls per sample (default 5)")
    parser.add_argument("--samples", type=_count, default=9, help="at most, per cell (default 9)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=14.0,
        help="no more samples of a case and world after this time, but at least one per routing (default 14)",
    )
    parser.add_argument("--transport", choices=CHOICES, help=f"of the project: sets {TRANSPORT}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a bar chart of the ratios")
    options = parser.parse_args(arguments)
    for case in options.cases:
        for world in options.worlds:
            if world < 2 or CASES[case].experts % world:
                parser.error(
                    f"--worlds {world}: must be 2 or more and divide the experts of {case}"
                )
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!a}")
    return int(text)


def main() -> int:
    """Exit code 0; 1: a result differs from the oracle, or a rank failed; 130: interrupted."""
    options = parse(sys.argv[1:])
    torch.set_num_threads(1)  # the ranks are forked: no pool of threads may exist before
    if options.transport is not None:
        os.environ[TRANSPORT] = options.transport
    os.environ.setdefault("HCCL_BUFFSIZE", "1024")  # as c4 needs it on an NPU: no warning here
    ascend_moe.register()  # once, not in every rank
    floor, cells = Floor(), []
    started = time.monotonic()
    try:
        for name in options.cases:
            for world in options.worlds:
                if world <= CASES[name].largest_world:
                    print(f"... {name}, {world} ranks", file=sys.stderr, flush=True)
                    cells += measure(CASES[name], world, options, floor)
    except RankFailed as error:
        print(f"scripts/bench cpu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scripts/bench cpu: interrupted, all ranks are stopped", file=sys.stderr)
        return 130
    print(table(cells))
    if not floor.available:
        print("no C compiler, no floor")
    if options.json:
        setup = setup_of(options, time.monotonic() - started)
        options.json.write_text(json.dumps(as_json(cells, setup), indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart(cells))
    return 0


def measure(case: Case, world: int, options: argparse.Namespace, floor: Floor) -> list[Cell]:
    """The cells of one case and world."""
    routings = [Routing.draw(case, world, seed) for seed in range(ROUTINGS)]
    floors = floor.milliseconds(case, world)
    times: dict[tuple[str, str], list[float]] = {
        (op, variant): [] for op in options.ops for variant in VARIANTS
    }
    with Ranks(routings) as ranks:
        for routing in range(ROUTINGS):
            for op, variant in times:
                ranks.check(variant, op, routing)
        deadline = time.monotonic() + options.seconds
        for number in range(options.samples):
            if number >= ROUTINGS and time.monotonic() > deadline:
                break
            turn = list(VARIANTS) if number % 2 else list(VARIANTS)[::-1]
            for op in options.ops:
                for variant in turn:
                    sample = ranks.sample(variant, op, number % ROUTINGS, options.inner)
                    times[op, variant].append(sample)
    cells = []
    for op in options.ops:
        ours, gloo = (statistics.median(times[op, variant]) for variant in ("ours", "gloo"))
        cells.append(Cell(case.name, world, op, ours, gloo, gloo / ours, floors[op]))
    return cells


def setup_of(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """How the figures came about."""
    return {
        "inner": options.inner,
        "samples_at_most": options.samples,
        "routings": ROUTINGS,
        "transport": os.environ.get(TRANSPORT),
        "check": os.environ.get("ASCEND_MOE_CHECK", "full"),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
