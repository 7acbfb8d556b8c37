"""A line plot and a bar chart as SVG text. Enough for the documentation, no dependency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 48
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#8a6d00")  # colour-blind safe
DASHES = ("", "6 3", "2 3", "", "6 3", "2 3")


class Curve(NamedTuple):
    """A labelled line through (x, y) points."""

    label: str
    points: tuple[tuple[int, int], ...]


def plot(
    title: str, x_label: str, y_label: str, curves: Sequence[Curve], mark: tuple[str, int]
) -> str:
    """The plot as one SVG document; mark is a labelled horizontal line."""
    x_ticks = _ticks(max(x for curve in curves for x, _ in curve.points))
    y_ticks = _ticks(max(y for curve in curves for _, y in curve.points))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + x / x_ticks[-1] * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - y / y_ticks[-1] * (HEIGHT - TOP - BOTTOM), 1),
        )

    body = _frame(title)
    for tick in x_ticks:
        x, y = at(tick, 0)
        body.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{tick}</text>')
    for tick in y_ticks:
        x, y = at(0, tick)
        end = WIDTH - RIGHT
        body.append(f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="#dddddd"/>')
        body.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{tick}</text>')
    body.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
    )
    body.append(f'<text x="{LEFT - 6}" y="{TOP - 6}" text-anchor="end">{escape(y_label)}</text>')
    label, value = mark
    x, y = at(x_ticks[-1], value)
    body.append(f'<line x1="{LEFT}" y1="{y}" x2="{x}" y2="{y}" stroke="#000000"/>')
    body.append(f'<text x="{x}" y="{y - 4}" text-anchor="end">{escape(label)}</text>')
    for index, curve in enumerate(curves):
        path = " ".join(f"{x},{y}" for x, y in (at(*point) for point in curve.points))
        style = f'stroke="{COLOURS[index]}" stroke-width="2" stroke-dasharray="{DASHES[index]}"'
        body.append(f'<polyline points="{path}" fill="none" {style}/>')
        y = TOP + 14 + 18 * index
        body.append(f'<line x1="{LEFT + 12}" y1="{y}" x2="{LEFT + 44}" y2="{y}" {style}/>')
        body.append(f'<text x="{LEFT + 52}" y="{y + 4}">{escape(curve.label)}</text>')
    return "\n".join([*body, "</svg>", ""])


def bars(
    title: str, x_label: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]
) -> str:
    """A bar chart as one SVG document: a group of bars for each of ``groups``, in it one bar per series."""
    top = _ticks(math.ceil(max(max(values) for values in series.values())))[-1]
    floor, height = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM - 18
    pitch = (WIDTH - LEFT - RIGHT) / len(groups)
    width = 0.8 * pitch / len(series)
    body = _frame(title)
    for index, (name, values) in enumerate(series.items()):
        fill = f'fill="{COLOURS[index]}"'
        x = LEFT + index * (WIDTH - LEFT - RIGHT) / len(series)
        body.append(f'<rect x="{x:.1f}" y="{TOP - 8}" width="12" height="12" {fill}/>')
        body.append(f'<text x="{x + 18:.1f}" y="{TOP + 2}">{escape(name)}</text>')
        for group, value in enumerate(values):
            x = LEFT + (group + 0.1) * pitch + index * width
            size = value / top * height
            body.append(
                f'<rect x="{x:.1f}" y="{floor - size:.1f}" width="{width - 2:.1f}" height="{size:.1f}" {fill}/>'
            )
            body.append(
                f'<text x="{x + width / 2 - 1:.1f}" y="{floor - size - 4:.1f}" text-anchor="middle">{value:.1f}</text>'
            )
    for group, name in enumerate(groups):
        x = LEFT + (group + 0.5) * pitch
        body.append(
            f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{escape(name)}</text>'
        )
    body.append(
        f'<line x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}" stroke="#000000"/>'
    )
    body.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return "\n".join([*body, "</svg>", ""])


def _frame(title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]


def _ticks(largest: int) -> list[int]:
    """Round numbers from 0 to just beyond the largest value."""
    step = next(
        base * 10**power
        for power in range(9)
        for base in (1, 2, 5)
        if largest / (base * 10**power) <= 8
    )
    return [step * index for index in range(-(-largest // step) + 1)]
