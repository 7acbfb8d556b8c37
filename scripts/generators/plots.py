"""The two kinds of plots of the documentation, as SVG by matplotlib (the extra ``plots``).

A plot carries the numbers it was drawn from. So `scripts/generate --check` compares these and needs no matplotlib, and
another version of it, which draws a line elsewhere by a hair, makes no file stale.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#8a6d00")  # colour-blind safe
DASHES = ("-", "--", ":", "-", "--", ":")


class Curve(NamedTuple):
    """A labelled line through (x, y) points."""

    label: str
    points: tuple[tuple[int, int], ...]


class Picture(NamedTuple):
    """A plot that is drawn when it is asked for; `mark` stands in its text and changes with the numbers."""

    mark: str
    draw: Callable[[], str]


def lines(
    title: str, x_label: str, y_label: str, curves: Sequence[Curve], level: tuple[str, int]
) -> Picture:
    """Curves over a common axis; `level` is a labelled horizontal line."""

    def on(axes: Axes) -> None:
        for curve, colour, dashes in zip(curves, COLOURS, DASHES, strict=False):
            axes.plot(*zip(*curve.points, strict=True), dashes, color=colour, label=curve.label)
        axes.axhline(level[1], color="black", linewidth=1, label=level[0])
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
        axes.legend()

    return _picture([title, x_label, y_label, curves, level], on)


def bars(
    title: str, x_label: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]
) -> Picture:
    """A group of bars for each of `groups`, in it one bar per series."""

    def on(axes: Axes) -> None:
        width = 0.8 / len(series)
        for index, (name, values) in enumerate(series.items()):
            places = [
                group + (index - (len(series) - 1) / 2) * width for group in range(len(groups))
            ]
            drawn = axes.bar(places, values, 0.95 * width, color=COLOURS[index], label=name)
            axes.bar_label(drawn, fmt="{:.1f}", fontsize=8)
        axes.set(title=title, xlabel=x_label, xticks=range(len(groups)), xticklabels=groups)
        axes.margins(y=0.2)
        axes.legend(loc="upper center", ncols=len(series))

    return _picture([title, x_label, groups, series], on)


def _picture(numbers: Any, on: Callable[[Axes], None]) -> Picture:
    mark = f"numbers {hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:16]}"

    def draw() -> str:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with mpl.rc_context(
            {"svg.fonttype": "none", "svg.hashsalt": "", "font.family": "sans-serif"}
        ):
            figure = Figure(figsize=(7.2, 4.2), layout="constrained")
            axes = figure.subplots()
            axes.grid(axis="y", color="#dddddd")
            axes.set_axisbelow(True)
            on(axes)
            drawn = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Description": mark}
            FigureCanvasSVG(figure).print_svg(drawn, metadata=metadata)
        return "".join(line.rstrip() + "\n" for line in drawn.getvalue().splitlines())

    return Picture(mark, draw)
