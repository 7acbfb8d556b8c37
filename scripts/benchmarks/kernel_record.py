"""Recorded results of the timed simulator, docs/kernels-time.json, and the tables of the pages made from them."""

from __future__ import annotations

import json
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
BAR_EP, BAR_BATCHES = 8, (8, 64)
"""Where every assumed figure is varied: two runs of the simulator for each."""

TEXTS = {
    "kernels-time.md": {
        "times": "| us, model | BS | ep | ours | floor | ratio | published (others' kernels, measured) |",
        "bars": "| ep {ep}, us, model | BS | ours | between | what matters most, alone |",
        "servers": "| us, model | BS | servers | ours | wire alone |",
        "figures": "| figure | A3 | A2 | range | source |",
    },
    "kernels-time.zh.md": {
        "times": "| us，模型 | BS | ep | 本项目 | 下限 | 比值 | 已公布（他人的内核，实测） |",
        "bars": "| ep {ep}，us，模型 | BS | 本项目 | 区间 | 单独影响最大的数字 |",
        "servers": "| us，模型 | BS | 服务器数 | 本项目 | 仅链路 |",
        "figures": "| 数字 | A3 | A2 | 范围 | 来源 |",
    },
}


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


def bars(given: Machine) -> list[dict[str, Any]]:
    """What the assumed figures leave open."""
    rows = []
    for operator in OPERATORS:
        for batch in BAR_BATCHES:
            shape = Shape(operator, batch, BAR_EP)
            bar = error_bar(lambda varied, shape=shape: simulate(shape, varied).us, given)
            rows.append(
                {
                    "operator": operator,
                    "batch": batch,
                    "us": round(bar.us, 2),
                    "low": round(bar.low, 2),
                    "high": round(bar.high, 2),
                    "matters": [[name, round(us, 2)] for name, us in bar.matters[:4]],
                }
            )
    return rows


def servers(given: Machine) -> list[dict[str, Any]]:
    """The hierarchy kernels on two, four and eight servers of A2."""
    return [
        {
            "operator": operator,
            "batch": batch,
            "servers": number,
            "us": round(
                simulate_servers(shape := ServerShape(operator, batch, number), given).us, 2
            ),
            "wire": round(wire_us(shape, given), 2),
        }
        for operator in OPERATORS
        for number in SERVERS
        for batch in SERVER_BATCHES
    ]


PARTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "times": lambda: times(machine("A3")),
    "bars": lambda: bars(machine("A3")),
    "servers": lambda: servers(machine("A2")),
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
            page = f"{before}{begin}\n{_table(part, head, content)}\n\n{end}{after}"
        made[name] = page
    return made


def _table(part: str, head: str, content: dict[str, Any]) -> str:
    head = head.format(ep=BAR_EP)
    rows = _figures() if part == "figures" else [ROWS[part](row) for row in content.get(part, [])]
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
        f"| {row['operator']} | {row['batch']} | {row['us']:.1f} | {row['low']:.1f} .. {row['high']:.1f}"
        f" | {matters} |"
    )


def _servers(row: dict[str, Any]) -> str:
    return (
        f"| {row['operator']} | {row['batch']} | {row['servers']} | {row['us']:.1f}"
        f" | {row['wire']:.1f} |"
    )


ROWS = {"times": _times, "bars": _bars, "servers": _servers}


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
