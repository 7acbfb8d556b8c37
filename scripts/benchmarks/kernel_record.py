"""Recorded results of the timed simulator, docs/kernels-time.json, and the tables of the pages made from them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernels.proof.floor import floor
from kernels.proof.machine import FIGURES, Machine, machine
from kernels.proof.published import published
from kernels.proof.server_timing import BATCHES as SERVER_BATCHES
from kernels.proof.server_timing import SERVERS, ServerShape, simulate_servers, wire_us
from kernels.proof.timing import BATCHES, OPERATORS, Shape, simulate
from kernels.proof.uncertainty import error_bar

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORD = DOCS / "kernels-time.json"
EP_SIZES = (8, 32)
LEFT_EP, LEFT = 32, {"plain": None, "whole": (), "left": (5,)}
"""Who is gone of a group of so many ranks, in so many ways of calling."""
BARS: tuple[Shape | ServerShape, ...] = (
    *(Shape(operator, batch, 8) for operator in OPERATORS for batch in (8, 64)),
    *(Shape(operator, 64, 32) for operator in OPERATORS),
    *(
        ServerShape(operator, 64, 2, kernels)
        for kernels in SERVERS
        for operator in ("dispatch_bf16", "combine")
    ),
)
"""Where every assumed figure is varied: two runs of the simulator for each."""

TEXTS = {
    "kernels-time.md": {
        "times": "| us, model | BS | ep | ours | floor | ratio | published (others' kernels, measured) |",
        "bars": "| us, model | BS | group | ours | between | what matters most, alone |",
        "servers": "| us, model | BS | servers | ours | wire alone |",
        "mesh": "| us, model | BS | servers | ours | wire alone |",
        "left": "| us, model | BS | without elastic_info | nobody gone | one gone |",
        "figures": "| figure | A3 | A2 | range | source |",
    },
    "kernels-time.zh.md": {
        "times": "| us，模型 | BS | ep | 本项目 | 下限 | 比值 | 已公布（他人的内核，实测） |",
        "bars": "| us，模型 | BS | 组 | 本项目 | 区间 | 单独影响最大的数字 |",
        "servers": "| us，模型 | BS | 服务器数 | 本项目 | 仅链路 |",
        "mesh": "| us，模型 | BS | 服务器数 | 本项目 | 仅链路 |",
        "left": "| us，模型 | BS | 无 elastic_info | 无人离开 | 一个离开 |",
        "figures": "| 数字 | A3 | A2 | 范围 | 来源 |",
    },
}
MOST = {
    "kernels-time.md": (
        "Which figure is the widest of a row: {each}.",
        "`{figure}` in {number} of {rows}, alone up to {share:.0f} % of the result",
        "; ",
    ),
    "kernels-time.zh.md": (
        "每行影响最大的数字：{each}。",
        "`{figure}`，{rows} 行中的 {number} 行，单独最多为结果的 {share:.0f} %",
        "；",
    ),
}
"""Behind the table of the bars."""


def times(given: Machine) -> list[dict[str, Any]]:
    """Every shape beside its floor."""
    return [
        {
            "operator": operator,
            "batch": batch,
            "ep": ep,
            "us": round(simulate(shape := Shape(operator, batch, ep), given).us, 2),
            "floor": round(floor(shape, given).us, 2),
        }
        for operator in OPERATORS
        for ep in EP_SIZES
        for batch in BATCHES
    ]


def bars() -> list[dict[str, Any]]:
    """What the assumed figures leave open."""
    rows = []
    for shape in BARS:
        several = isinstance(shape, ServerShape)
        group = f"{shape.kernels}, {shape.servers} servers" if several else f"ep {shape.ep}"
        bar = error_bar(
            lambda varied, shape=shape: us_of(shape, varied),
            machine("A2" if several else "A3"),
            cards=several,
        )
        rows.append(
            {
                "operator": shape.operator,
                "batch": shape.batch,
                "group": group,
                "us": round(bar.us, 2),
                "low": round(bar.low, 2),
                "high": round(bar.high, 2),
                "matters": [[name, round(us, 2)] for name, us in bar.matters[:4]],
            }
        )
    return rows


def us_of(shape: Shape | ServerShape, given: Machine) -> float:
    """Microseconds of one launch."""
    if isinstance(shape, ServerShape):
        return simulate_servers(shape, given).us
    return simulate(shape, given).us


def servers(given: Machine, kernels: str) -> list[dict[str, Any]]:
    """Kernels for several servers of A2."""
    return [
        {
            "operator": operator,
            "batch": batch,
            "servers": number,
            "us": round(us_of(shape := ServerShape(operator, batch, number, kernels), given), 2),
            "wire": round(wire_us(shape, given), 2),
        }
        for operator in OPERATORS
        for number in SERVERS[kernels]
        for batch in SERVER_BATCHES
    ]


def left(given: Machine) -> list[dict[str, Any]]:
    """A group that one rank has left, beside the whole one with elastic_info and without."""
    return [
        {"operator": operator, "batch": batch}
        | {
            name: round(us_of(Shape(operator, batch, LEFT_EP, gone), given), 2)
            for name, gone in LEFT.items()
        }
        for operator in OPERATORS
        for batch in BATCHES
    ]


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "times": lambda: times(machine("A3")),
    "bars": bars,
    "servers": lambda: servers(machine("A2"), "hierarchy"),
    "mesh": lambda: servers(machine("A2"), "mesh"),
    "left": lambda: left(machine("A3")),
}


def record(parts: list[str]) -> None:
    """Runs the simulator for these parts, and rewrites the pages."""
    for part in parts:
        rows = PARTS[part]()
        content = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        content[part] = rows
        RECORD.write_text(json.dumps(content, indent=1) + "\n")
        for name, page in pages(content).items():
            (DOCS / name).write_text(page)


def pages(content: dict[str, Any]) -> dict[str, str]:
    """Both pages with the tables that follow from a record."""
    made = {}
    for name, heads in TEXTS.items():
        page = (DOCS / name).read_text()
        for part, head in heads.items():
            begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
            before, _, rest = page.partition(begin)
            _, _, after = rest.partition(end)
            table = _table(part, head, content)
            if part == "bars" and content.get(part):
                table += f"\n\n{_most(MOST[name], content[part])}"
            page = f"{before}{begin}\n{table}\n\n{end}{after}"
        made[name] = page
    return made


def _table(part: str, head: str, content: dict[str, Any]) -> str:
    if part != "figures" and not content.get(part):
        return f"    scripts/bench kernels --record {part}"
    rows = _figures() if part == "figures" else [ROWS[part](row) for row in content[part]]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows])


def _times(row: dict[str, Any]) -> str:
    shape = Shape(row["operator"], row["batch"], row["ep"])
    others = ", ".join(
        f"{one.who} {one.us:g}" + (f" ({one.note})" if one.note else "") for one in published(shape)
    )
    return (
        f"| {row['operator']} | {row['batch']} | {row['ep']} | {row['us']:.1f} | {row['floor']:.1f}"
        f" | {row['us'] / row['floor']:.2f} | {others or '-'} |"
    )


def _bars(row: dict[str, Any]) -> str:
    matters = ", ".join(f"{name} {us:.1f}" for name, us in row["matters"] if us >= 0.05)
    return (
        f"| {row['operator']} | {row['batch']} | {row['group']} | {row['us']:.1f}"
        f" | {row['low']:.1f} .. {row['high']:.1f} | {matters} |"
    )


def _most(texts: tuple[str, str, str], rows: list[dict[str, Any]]) -> str:
    """Which figures matter most, over all rows."""
    whole, one, between = texts
    widest = [(*row["matters"][0], row["us"]) for row in rows]
    each = [
        one.format(
            figure=figure,
            number=number,
            rows=len(rows),
            share=max(100 * width / us for name, width, us in widest if name == figure),
        )
        for figure, number in Counter(name for name, _, _ in widest).most_common()
    ]
    return whole.format(each=between.join(each))


def _servers(row: dict[str, Any]) -> str:
    return (
        f"| {row['operator']} | {row['batch']} | {row['servers']} | {row['us']:.1f}"
        f" | {row['wire']:.1f} |"
    )


def _left(row: dict[str, Any]) -> str:
    times = " | ".join(f"{row[name]:.1f}" for name in LEFT)
    return f"| {row['operator']} | {row['batch']} | {times} |"


ROWS = {"times": _times, "bars": _bars, "servers": _servers, "mesh": _servers, "left": _left}


def _figures() -> list[str]:
    rows = []
    for name, figure in FIGURES["A3"].items():
        other = FIGURES["A2"][name]
        span = f"{figure.low:g} .. {figure.high:g}" if figure.assumed else ""
        source = (
            figure.source
            if other.source == figure.source
            else f"A3: {figure.source}. A2: {other.source}"
        )
        rows.append(f"| {name} | {figure.value:g} | {other.value:g} | {span} | {source} |")
    return rows
