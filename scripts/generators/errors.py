"""docs/errors.md: what a failed run prints, from the tables of `explain` (ascend_moe/diagnosis)."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.diagnosis.causes import CAUSES
from ascend_moe.diagnosis.entry import Entry
from ascend_moe.diagnosis.symptoms import SECTIONS
from generators.constraints import escape

HEAD = """# Errors, and what they mean

<!-- Made by scripts/generate from the tables in ascend_moe/diagnosis/; change the records there. -->

What a failed run prints, what it means and what to do. `ascend-moe explain LOG` finds these in a log, says which
operator failed, reads the rule out of a refusal of dispatch or combine and recomputes the numbers of its buffer line;
`ascend-moe explain 561002` prints one entry. Rules are in [constraints.md](constraints.md), defects of CANN's own
kernels in [stock-defects.md](stock-defects.md).

A meaning holds for whoever met the error. The suspects are those of dispatch and combine: they count where one of the
two failed, which `fault kernel_name=`, `call aclnn... failed` or `OpName:[...]` in the log says. What another operator
printed is its own. A line of tiling (EZ9999, EZ0004, EZ0024 ..) that names a parameter is not listed: `explain` maps it
to its rule.
"""
TABLE = """
## {title}

| name | meaning | what to do | suspects | source |
|---|---|---|---|---|
"""
SUSPECTS = """
## Suspects

| name | may be wrong | what to do | rules |
|---|---|---|---|
"""


def files(root: Path) -> dict[str, str]:
    parts = [HEAD]
    for title, table in SECTIONS:
        parts.append(TABLE.format(title=title))
        parts += [_row(entry) for entry in table]
    parts.append(SUSPECTS)
    for name, cause in CAUSES.items():
        rules = ", ".join(map(link, cause.rules))
        cells = [f"**{name}**", escape(cause.says), escape(cause.remedy), rules or "-"]
        parts.append("| " + " | ".join(cells) + " |\n")
    return {"docs/errors.md": "".join(parts)}


def _row(entry: Entry) -> str:
    symbol = f" ({entry.symbol})" if entry.symbol else ""
    suspects = ", ".join(entry.causes)
    said = [
        rule for rule in entry.rules if not any(rule in CAUSES[key].rules for key in entry.causes)
    ]
    suspects = "; ".join(part for part in (", ".join(map(link, said)), suspects) if part)
    cells = [
        f"**{escape(entry.name)}**{symbol}",
        escape(entry.meaning),
        escape(entry.advice) or "-",
        suspects or "-",
        escape(entry.source),
    ]
    return "| " + " | ".join(cells) + " |\n"


def link(rule: str) -> str:
    """A rule and its heading in constraints.md."""
    return f"[{rule}](constraints.md#{anchor(rule)})"


def anchor(rule: str) -> str:
    """The anchor of a rule's heading: its id and its parameter."""
    from ascend_moe.contract.rules import RULES_BY_ID

    return f"{rule}-{RULES_BY_ID[rule].param}".lower()
