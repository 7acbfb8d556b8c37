"""docs/build-npu.md (its table of CANN's functions)."""

from __future__ import annotations

import re
from pathlib import Path

from generators.cann_interface import FIELD, LINKED, ROWS, Row
from generators.constraints import escape

HEAD = """| function, or field at offset | CANN | the stand-in gives | decided in |
|---|---|---|---|
"""


def files(root: Path) -> dict[str, str]:
    name = "docs/build-npu.md"
    page = (root / name).read_text()
    made = HEAD + "".join(_line(row) for row in ROWS)
    block = r"(<!-- cann: .*? -->\n).*?(<!-- end -->)"
    return {name: re.sub(block, lambda found: f"{found[1]}{made}{found[2]}", page, flags=re.DOTALL)}


def _line(row: Row) -> str:
    name = f"`{row.name}`"
    if row.how == LINKED:
        name += " (linked)"
    if row.how == FIELD:
        name += f" at {row.offset}"
    since = row.product if row.how == FIELD else row.since
    return f"| {name} | {since} | {escape(row.gives)} | {escape(row.source)} |\n"
