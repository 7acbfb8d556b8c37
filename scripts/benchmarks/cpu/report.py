"""What was measured, as a table, as JSON and as a bar chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.generators.plots import bars


@dataclass(frozen=True)
class Cell:
    """Medians of one case, world and op, in milliseconds per call."""

    case: str
    world: int
    op: str
    ours_ms: float
    gloo_ms: float
    ratio: float
    """gloo / ours."""
    floor_ms: float | None


def geomeans(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """For each op and world, over the cases: gloo / ours, and ours / floor where there is a floor."""
    found = []
    for op, world in dict.fromkeys((cell.op, cell.world) for cell in cells):
        chosen = [cell for cell in cells if (cell.op, cell.world) == (op, world)]
        over_floor = [cell.ours_ms / cell.floor_ms for cell in chosen if cell.floor_ms]
        found.append(
            {
                "world": world,
                "op": op,
                "cases": len(chosen),
                "ratio": _geomean([cell.ratio for cell in chosen]),
                "over_floor": _geomean(over_floor) if over_floor else None,
            }
        )
    return found


def _geomean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def as_json(cells: Sequence[Cell], setup: dict[str, Any]) -> dict[str, Any]:
    """cells: one record each; geomeans: one per op and world; setup: how it was measured."""
    return {
        "cells": [asdict(cell) for cell in cells],
        "geomeans": geomeans(cells),
        "setup": setup,
    }


def table(cells: Sequence[Cell]) -> str:
    """One line per cell, then one per geometric mean."""
    head = f"{'case':6}{'world':>6}  {'op':14}{'ours ms':>10}{'gloo ms':>10}{'ratio':>8}"
    lines = [head + f"{'floor ms':>10}{'ours/floor':>12}"]
    for cell in cells:
        line = f"{cell.case:6}{cell.world:6}  {cell.op:14}{cell.ours_ms:10.2f}{cell.gloo_ms:10.2f}{cell.ratio:8.1f}"
        floor = cell.floor_ms
        lines.append(line + (f"{floor:10.2f}{cell.ours_ms / floor:12.1f}" if floor else ""))
    lines += ["", "geometric means over the cases"]
    for mean in geomeans(cells):
        over = mean["over_floor"]
        line = f"{'':6}{mean['world']:6}  {mean['op']:14}{'':20}{mean['ratio']:8.1f}"
        lines.append(line + (f"{'':10}{over:12.1f}" if over else ""))
    return "\n".join(lines)


def chart(cells: Sequence[Cell]) -> str:
    """The geometric means of gloo / ours: a group of bars per world, a bar per op."""
    means = geomeans(cells)
    worlds = sorted({mean["world"] for mean in means})
    ops = list(dict.fromkeys(mean["op"] for mean in means))
    ratio = {(mean["op"], mean["world"]): mean["ratio"] for mean in means}
    return bars(
        "Times faster than a plain gloo implementation (one host, CPU)",
        "ranks",
        [str(world) for world in worlds],
        {op: [ratio[op, world] for world in worlds] for op in ops},
    ).draw()
