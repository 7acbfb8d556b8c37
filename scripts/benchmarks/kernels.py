"""How long the device kernels should take on Atlas A3: a model, the timed simulator. Measures nothing.

Nothing ran on an NPU. What the model believes, and why, is in kernels/proof/machine.py; what follows from it, in
docs/kernels-time.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kernels.proof.floor import floor
from kernels.proof.machine import Machine, machine
from kernels.proof.timing import (
    BATCHES,
    EXPERTS,
    HIDDEN,
    OPERATORS,
    TOPK,
    Shape,
    cores_of,
    simulate,
)
from kernels.proof.tuning import MOST, Tuning, TuningError, load

from . import core_search
from .kernel_record import PARTS, record


def table(
    shapes: list[Shape], given: Machine, cores: int | None, tuning: Tuning | None = None
) -> tuple[str, dict[str, float]]:
    """The lines to print, and microseconds by the name of the shape."""
    lines = [
        f"MODEL of one die of Atlas {given.product}, us without the launch: H {HIDDEN}, K {TOPK}, {EXPERTS} experts,"
        " balanced routes, the timed simulator with all ranks",
        f"{'':15}{'BS':>5}{'ep':>5}{'cores':>7}{'us':>8}{'floor':>8}{'ratio':>7}"
        "   floor: link, then what cannot be avoided",
    ]
    results = {}
    for shape in shapes:
        number = cores or cores_of(shape, given, tuning)
        us, least = simulate(shape, given, cores=number).us, floor(shape, given)
        results[shape.name] = round(us, 2)
        lines.append(
            f"{shape.operator:15}{shape.batch:5}{shape.ep:5}{number:7}{us:8.1f}{least.us:8.1f}"
            f"{us / least.us:7.2f}   {least}"
        )
    return "\n".join(lines), results


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--operator", choices=OPERATORS, help="only this one")
    parser.add_argument("--bs", type=int, action="append", help="tokens per rank; several times")
    parser.add_argument("--ep", type=int, action="append", help="ranks; several times")
    parser.add_argument(
        "--cores", type=int, help="vector cores of a launch (default: what the library chooses)"
    )
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="FILE",
        help="what scripts/npu_check --tune has written: its figures and cores take the place of these",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the estimates there")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write what rank 0 does in the last shape there, for ui.perfetto.dev",
    )
    parser.add_argument(
        "--record",
        choices=PARTS,
        nargs="*",
        help="run these parts of docs/kernels-time.json anew (none: all), and rewrite the pages; minutes",
    )
    parser.add_argument(
        "--search",
        choices=tuple(core_search.EP_SIZES),
        nargs="*",
        metavar="PRODUCT",
        help="search the cores of the host library's table anew (none: A2 and A3), and write it; minutes",
    )
    given = parser.parse_args()
    if given.cores is not None and not 1 <= given.cores <= MOST["cores"]:
        parser.error(f"--cores {given.cores}: must be 1 to {MOST['cores']}")
    if given.search is not None:
        for product in given.search or core_search.EP_SIZES:
            core_search.write(product)
        print("now: scripts/generate")
        return
    if given.record is not None:
        record(given.record or list(PARTS))
        return
    try:
        tuning = load(given.tuning, "A3") if given.tuning else None
    except TuningError as error:
        parser.error(str(error))
    hardware = tuning.machine if tuning else machine("A3")
    shapes = [
        Shape(operator, batch, ep)
        for operator in ([given.operator] if given.operator else OPERATORS)
        for ep in given.ep or [32]
        for batch in given.bs or BATCHES
    ]
    if tuning is not None and tuning.virtual:
        print(f"MEANINGLESS: {tuning.path} was measured on the virtual NPU")
    printed, results = table(shapes, hardware, given.cores, tuning)
    print(printed)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    if given.trace:
        last = shapes[-1]
        cores = given.cores or cores_of(last, hardware, tuning)
        simulate(last, hardware, cores=cores, trace=given.trace)


if __name__ == "__main__":
    main()
