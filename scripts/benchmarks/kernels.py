"""How long the device kernels should take on Atlas A3: a model from counted bytes and published bandwidths.

Nothing is measured here, and nothing ran on an NPU. What the model assumes is in kernels/proof/cost.py; what follows
from it, in docs/kernels.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from kernels.proof.cost import (
    BATCHES,
    EP_SIZES,
    EXPERTS,
    HIDDEN,
    OPERATORS,
    PUBLISHED_US,
    TOPK,
    Machine,
    Phase,
    Shape,
    combine_pull,
    dispatch_push,
    estimates_us,
    once_per_rank,
    roofline,
    seconds,
)

ALTERNATIVES: dict[str, Callable[[Shape, Machine], list[Phase]]] = {
    "dispatch_bf16": dispatch_push,
    "dispatch_int8": dispatch_push,
    "combine": combine_pull,
}


def table(machine: Machine) -> str:
    """A line per operator and shape."""
    lines = [
        f"MODEL of one die of Atlas A3, us per launch: H {HIDDEN}, K {TOPK}, {EXPERTS} experts, {machine.cores} cores",
        "ours: dispatch pulls, combine pushes; other way: the opposite; link: bytes over the link alone",
        "published: measured, kernels that follow the shipped ones: DeepEP-Ascend, low latency (sgl-kernel-npu)",
        "",
        f"{'':15}{'BS':>5}{'ep':>5}{'ours':>8}{'other way':>11}{'link':>8}{'published':>11}   phases of ours",
    ]
    for name, operator in OPERATORS.items():
        for batch in BATCHES:
            for ep in EP_SIZES:
                shape = Shape(batch, ep, name.endswith("int8"))
                ours, other = operator(shape, machine), ALTERNATIVES[name](shape, machine)
                phases = ", ".join(
                    f"{phase.name} {1e6 * phase.seconds(machine):.1f}" for phase in ours
                )
                lines.append(
                    f"{name:15}{batch:5}{ep:5}{1e6 * seconds(ours, machine):8.1f}"
                    f"{1e6 * seconds(other, machine):11.1f}{1e6 * roofline(ours, machine):8.1f}"
                    f"{PUBLISHED_US.get((name, batch, ep), '-'):>11}   launch {1e6 * machine.launch:.0f}, {phases}"
                )
    saved = ", ".join(f"ep {ep}: {100 * once_per_rank(ep):.0f} %" for ep in EP_SIZES)
    lines += [
        "",
        f"If every token crossed the link once per destination rank, not once per row, dispatch would send {saved}.",
        "Assumed: " + ", ".join(f"{f.name} {getattr(machine, f.name):g}" for f in fields(machine)),
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the estimates there")
    given = parser.parse_args()
    machine = Machine()
    print(table(machine))
    if given.json:
        given.json.write_text(json.dumps(estimates_us(machine), indent=2) + "\n")


if __name__ == "__main__":
    main()
