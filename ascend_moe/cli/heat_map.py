"""Who waits for whom as a picture: a row for each waiting rank, a column for each rank that is waited for."""

from __future__ import annotations

import importlib
from typing import Any, Final

from ascend_moe.diagnosis.stragglers import Waiting, verdict

EXTRA: Final = "plots"
_TICKS: Final = 16


def draw(waiting: Waiting, out: str) -> None:
    """Writes an SVG file. Raises ImportError, naming the extra, without matplotlib, and OSError."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib.backends.backend_svg")
    except ImportError:
        text = f"no heat map: matplotlib is missing; pip install 'ascend-moe[{EXTRA}]'"
        raise ImportError(text) from None
    side = min(4.0 + 0.25 * waiting.ranks, 12.0)
    figure = figures.Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(waiting.mean(), cmap="magma_r", vmin=0.0, aspect="auto")
    figure.colorbar(image, label="microseconds per step")
    axes.set_title(verdict(waiting), fontsize="small", wrap=True)
    axes.set_xlabel("waited for: rank")
    axes.set_ylabel("waiting: rank")
    axes.set_xticks(range(0, waiting.ranks, -(-waiting.ranks // _TICKS)))
    shown = range(0, len(waiting.waiters), -(-len(waiting.waiters) // _TICKS))
    axes.set_yticks(shown, labels=[str(waiting.waiters[index]) for index in shown])
    figure.savefig(out, format="svg")
