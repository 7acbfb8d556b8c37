"""How long the device kernels should take on Atlas A3 and over servers of A2: a model, the timed simulator.

Measures nothing, and nothing ran on an NPU. What the model believes, and why, is in kernels/proof/machine.py; what
follows from it, in docs/kernels-time.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kernels.proof import server_timing
from kernels.proof.floor import floor
from kernels.proof.machine import Machine, machine
from kernels.proof.server_timing import SERVERS, ServerShape, simulate_servers, wire_us
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


def server_table(
    shapes: list[ServerShape], given: Machine, cores: int | None, tuning: Tuning | None = None
) -> tuple[str, dict[str, float]]:
    """The same over several servers, beside the time of the bytes on the wire."""
    lines = [
        f"MODEL of servers of Atlas {given.product}, us without the launch: H {HIDDEN}, K {TOPK}, {EXPERTS} experts,"
        " balanced routes, the timed simulator with all ranks",
        f"{'':15}{'BS':>5}{'servers':>9}{'cores':>7}{'us':>8}{'wire':>8}   {shapes[0].kernels}",
    ]
    results = {}
    for shape in shapes:
        number = cores or server_timing.cores_of(shape, given, tuning)
        us = simulate_servers(shape, given, cores=number).us
        results[shape.name] = round(us, 2)
        wire = wire_us(shape, given)
        lines.append(
            f"{shape.operator:15}{shape.batch:5}{shape.servers:9}{number:7}{us:8.1f}{wire:8.1f}"
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
        "--gone", type=int, action="append", help="a rank that has left the group; several times"
    )
    parser.add_argument("--kernels", choices=SERVERS, help="those for several servers of A2")
    parser.add_argument(
        "--servers", type=int, action="append", choices=(2, 4, 8), help="of A2 (2); several times"
    )
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
    operators = [given.operator] if given.operator else OPERATORS
    batches = given.bs or BATCHES
    product = "A2" if given.kernels or given.servers else "A3"
    try:
        tuning = load(given.tuning, product) if given.tuning else None
    except TuningError as error:
        parser.error(str(error))
    hardware = tuning.machine if tuning else machine(product)
    if tuning is not None and tuning.virtual:
        print(f"MEANINGLESS: {tuning.path} was measured on the virtual NPU")
    if given.kernels or given.servers:
        if given.ep or given.gone or given.trace:
            parser.error("--ep, --gone and --trace are for one group without --kernels, --servers")
        printed, results = server_table(
            [
                ServerShape(operator, batch, servers, given.kernels or "hierarchy")
                for operator in operators
                for servers in given.servers or [2]
                for batch in batches
            ],
            *(hardware, given.cores, tuning),
        )
    else:
        for rank in given.gone or ():
            if not 0 <= rank < min(given.ep or [32]):
                parser.error(f"--gone {rank}: no rank of a group of {min(given.ep or [32])}")
        shapes = [
            Shape(operator, batch, ep, given.gone and tuple(given.gone))
            for operator in operators
            for ep in given.ep or [32]
            for batch in batches
        ]
        printed, results = table(shapes, hardware, given.cores, tuning)
        if given.trace:
            cores = given.cores or cores_of(shapes[-1], hardware, tuning)
            simulate(shapes[-1], hardware, cores=cores, trace=given.trace)
    print(printed)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
