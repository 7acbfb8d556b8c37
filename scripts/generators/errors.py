"""docs/errors.md: what the stock operators print when they fail, from the symptoms of `explain`."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.diagnosis.symptoms import SYMPTOMS
from generators.constraints import escape

HEAD = """# Errors of the stock operators

<!-- Made by scripts/generate from ascend_moe/diagnosis/symptoms.py; change the records there. -->

What a failed run prints, what it means and what to do. `ascend-moe explain LOG` finds these lines in a
log and recomputes the numbers in them; `ascend-moe explain 561002` prints one entry. Rules are in
[constraints.md](constraints.md).

| line or number | meaning | what to do | rules |
|---|---|---|---|
"""


def files(root: Path) -> dict[str, str]:
    rows = []
    for symptom in SYMPTOMS:
        rules = ", ".join(f"[{rule}](constraints.md#{anchor(rule)})" for rule in symptom.rules)
        cells = [f"**{escape(symptom.name)}**", escape(symptom.meaning), escape(symptom.advice)]
        rows.append("| " + " | ".join([*cells, rules or "-"]) + " |\n")
    return {"docs/errors.md": HEAD + "".join(rows)}


def anchor(rule: str) -> str:
    """The anchor of a rule's heading: its id and its parameter."""
    from ascend_moe.contract.rules import RULES_BY_ID

    return f"{rule}-{RULES_BY_ID[rule].param}".lower()
