"""docs/build-npu.md and its Chinese twin (their table of CANN's functions)."""

from __future__ import annotations

import re
from pathlib import Path

from generators.cann_interface import FIELD, LINKED, ROWS, Row
from generators.constraints import escape
from generators.texts import LANGUAGES, SUFFIX

HEAD = {
    "en": "| function, or field at offset | CANN | the stand-in gives | decided in |\n|---|---|---|---|\n",
    "zh": "| 函数，或某偏移处的字段 | CANN | 桩库给出（英文，取自代码中的表） | 由何处决定 |\n|---|---|---|---|\n",
}


def files(root: Path) -> dict[str, str]:
    made = {}
    for language in LANGUAGES:
        name = f"docs/build-npu{SUFFIX[language]}.md"
        page = (root / name).read_text()
        table = HEAD[language] + "".join(_line(row) for row in ROWS)
        made[name] = re.sub(
            r"(<!-- cann: .*? -->\n).*?(<!-- end -->)",
            lambda found, table=table: f"{found[1]}{table}{found[2]}",
            page,
            flags=re.DOTALL,
        )
    return made


def _line(row: Row) -> str:
    name = f"`{row.name}`"
    if row.how == LINKED:
        name += " (linked)"
    if row.how == FIELD:
        name += f" at {row.offset}"
    since = row.product if row.how == FIELD else row.since
    return f"| {name} | {since} | {escape(row.gives)} | {escape(row.source)} |\n"
