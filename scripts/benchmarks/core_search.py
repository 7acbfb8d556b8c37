"""On how many cores a launch is fastest in the timed simulator: the table of the host library.

``scripts/bench kernels --search`` writes it anew, ``kernels/op_api/cores/PRODUCT.json``, and ``scripts/generate`` makes
``kernels/op_api/core_table.h`` of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kernels.proof import tuning
from kernels.proof.machine import Machine, machine
from kernels.proof.server_programs import PER_SERVER
from kernels.proof.server_timing import ServerShape, simulate_servers
from kernels.proof.timing import OPERATORS, TOPK, Shape, simulate
from kernels.proof.tuning import CoreChoice, best

CANDIDATES = ((64, (8, 16, 24, 32, 40, 48)), (1 << 20, (24, 32, 36, 40, 44, 48)))
"""Numbers of cores to try, up to so many rows."""
BATCHES = (1, 8, 64, 128)
EP_SIZES = {"A2": (8,), "A3": (8, 32)}
SERVERS = {"A2": {"hierarchy": (2, 4), "mesh": (2, 4)}, "A3": {}}
SERVER_BATCHES = (8, 64)

Run = Callable[[int], float]


def search(product: str, given: Machine | None = None) -> Iterator[CoreChoice]:
    """Every shape on every candidate, one after the other."""
    hardware = given or machine(product)
    for operator, ep, batch, run in _shapes(product, hardware):
        rows = TOPK * batch
        candidates = next(found for most, found in CANDIDATES if rows <= most)
        yield CoreChoice(operator, ep, rows, best({cores: run(cores) for cores in candidates}))


def _shapes(product: str, hardware: Machine) -> Iterator[tuple[str, int, int, Run]]:
    for operator in OPERATORS:
        for ep in EP_SIZES[product]:
            for batch in BATCHES:
                mesh = Shape(operator, batch, ep)
                yield operator, ep, batch, lambda n, s=mesh: simulate(s, hardware, cores=n).us
        for kernels, numbers in SERVERS[product].items():
            for servers in numbers:
                for batch in SERVER_BATCHES:
                    apart = ServerShape(operator, batch, servers, kernels)
                    yield (
                        *(f"{kernels}_{operator}", servers * PER_SERVER[product], batch),
                        lambda n, s=apart: simulate_servers(s, hardware, cores=n).us,
                    )


def write(product: str) -> None:
    """The file of a product, and what was chosen on the screen."""
    choices = []
    for choice in search(product):
        print(
            f"{product} {choice.operator:24} ep {choice.ep:3} rows {choice.rows:5}: {choice.cores} cores",
            flush=True,
        )
        choices.append(choice)
    content = {"product": product, "from": "scripts/bench kernels --search: the timed simulator"}
    (tuning.CHECKED_IN / f"{product}.json").write_text(tuning.text(content, choices))
