"""ascend-moe explain: a rule, an error number, or the log of a failed run. What is said comes from diagnosis/."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascend_moe.cli.streams import standard_input
from ascend_moe.cli.table import pairs, paragraph
from ascend_moe.contract.rules import RULES_BY_ID, Rule
from ascend_moe.inputs import open_input

if TYPE_CHECKING:
    from ascend_moe.diagnosis.finding import Finding

RULE_ID = re.compile(r"(?i)[xdces]-\d{2}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "exit code: 0 explained, 2 nothing recognised or usage"
    parser.add_argument(
        "what",
        nargs="?",
        default="-",
        metavar="RULE|NUMBER|LOG",
        help='a rule id such as X-26, an error number, a log file, or "-" for standard input',
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    what = arguments.what
    if RULE_ID.fullmatch(what) and what.upper().startswith("S"):
        return _defect(what.upper(), arguments.json)
    if RULE_ID.fullmatch(what):
        rule = RULES_BY_ID.get(what.upper())
        if rule is None:
            return _fail(f"no rule {what.upper()}; docs/constraints.md lists all")
        print(json.dumps({"rule": _rule_json(rule)}) if arguments.json else rule_text(rule))
        return 0
    from ascend_moe.diagnosis.finding import of_name  # a rule is answered without it

    named = of_name(what)
    if named is not None:
        findings = [named]
    else:
        try:
            findings = _read(what)
        except OSError as error:
            return _fail(f"{what!a}: {error.strerror or 'cannot be read'}, and it is no rule id")
        except ValueError as error:  # a null byte in the name
            return _fail(f"{what!a}: {error}")
    if not findings:
        return _fail("nothing recognised: no line is a known symptom of these operators")
    if arguments.json:
        print(json.dumps({"findings": [_finding_json(finding) for finding in findings]}))
    else:
        print("\n\n".join(_finding_text(finding) for finding in findings))
    return 0


def _defect(name: str, as_json: bool) -> int:
    from ascend_moe.contract.defects import DEFECTS_BY_ID, EVIDENCE

    defect = DEFECTS_BY_ID.get(name)
    if defect is None:
        return _fail(f"no defect {name}; docs/stock-defects.md lists all")
    rows: list[tuple[str, object]] = [
        ("defect", f"{defect.id}, of CANN's own kernels"),
        ("where", defect.title),
        ("happens", defect.happens),
        ("do", defect.remedy),
        ("seen in", defect.versions),
        ("evidence", f"found {EVIDENCE}"),
    ]
    if as_json:
        print(json.dumps({"defect": {label: str(text) for label, text in rows} | {"id": name}}))
    else:
        print(pairs(rows))
    return 0


def _fail(reason: str) -> int:
    print(f"ascend-moe explain: {reason}", file=sys.stderr)
    return 2


def _read(what: str) -> list[Finding]:
    """The findings of a file, or of standard input."""
    from ascend_moe.diagnosis.report import LOG_MAX_BYTES, diagnose

    if what == "-":
        return diagnose(standard_input())
    with open_input(Path(what)) as stream:
        if stream.seekable():
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - LOG_MAX_BYTES))
        return diagnose(stream)


def rule_text(rule: Rule) -> str:
    """Everything about a rule, with what its violating example reports."""
    rows: list[tuple[str, object]] = [
        ("rule", rule.id),
        ("says", rule.statement),
        ("operators", ", ".join(rule.operators)),
        ("products", ", ".join(rule.products)),
        ("contracts", ", ".join(rule.contracts)),
        ("paths", ", ".join(rule.paths)),
        ("checked", rule.checked if rule.checked != "call" else f"in every call, {rule.level}"),
        ("source", rule.source),
    ]
    if rule.note:
        rows.append(("note", rule.note))
    from ascend_moe.contract.check import violations
    from ascend_moe.contract.examples import example_call, example_settings

    setting = next(example_settings(rule), None) if rule.breaks is not None else None
    if setting is not None and rule.breaks is not None:
        rows.append(("breaks it", changes_text(rule.breaks)))
        rows.append(("holds it", changes_text(rule.holds)))
        example = example_call(setting, rule.breaks)
        reported = violations(
            setting.op,
            example.args,
            product=setting.product,
            contract=setting.contract,
            env=example.env,
            implementation=example.implementation,
        )
        rows += [("reported as", violation) for violation in reported[:1]]
    return pairs(rows)


def changes_text(changes: Mapping[str, Any]) -> str:
    """The changes of an example as keywords."""
    parts = []
    for name, value in changes.items():
        if name == "env":
            parts += [f"{key}={text}" for key, text in value.items()]
        elif isinstance(value, tuple):
            parts.append(f"{name}=[{', '.join(map(str, value))}]")
        else:
            long_name = isinstance(value, str) and len(value) > 40
            parts.append(
                f"{name}={value[0]!r} * {len(value)}" if long_name else f"{name}={value!r}"
            )
    return ", ".join(parts) or "the base call"


def _finding_text(finding: Finding) -> str:
    where = f"line {finding.line}" + (f", {finding.times} times" if finding.times > 1 else "")
    rows: list[tuple[str, object]] = [
        ("found", f"{finding.name}" + (f" ({where})" if finding.line else "")),
    ]
    if finding.line:
        rows.append(("operator", finding.operator or finding.owner))
    rows.append(("means", finding.meaning))
    rows += _labelled("numbers", finding.details)
    rows += _labelled("log", [f"{number}: {words}" for number, words in finding.evidence])
    if finding.advice:
        rows.append(("do", finding.advice))
    causes = [
        f"{cause.says}{_in_brackets(cause.rules)}. {cause.remedy}" for cause in finding.causes
    ]
    rows += _labelled("suspects", causes)
    text = pairs(rows)
    if finding.rules:
        rules = [f"{name} {_statement(name)}" for name in finding.rules]
        text += "\nrules\n" + "\n".join(paragraph(rule, "  ") for rule in rules)
    return text


def _statement(name: str) -> str:
    if name in RULES_BY_ID:
        return RULES_BY_ID[name].statement
    from ascend_moe.contract.defects import DEFECTS_BY_ID

    return DEFECTS_BY_ID[name].title


def _labelled(label: str, texts: list[str]) -> list[tuple[str, object]]:
    return [(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _in_brackets(rules: tuple[str, ...]) -> str:
    return f" ({', '.join(rules)})" if rules else ""


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.name,
        "owner": finding.owner,
        "operator": finding.operator,
        "line": finding.line,
        "times": finding.times,
        "meaning": finding.meaning,
        "details": finding.details,
        "advice": finding.advice,
        "causes": [
            {"says": cause.says, "remedy": cause.remedy, "rules": list(cause.rules)}
            for cause in finding.causes
        ],
        "rules": list(finding.rules),
        "evidence": [{"line": number, "text": words} for number, words in finding.evidence],
    }


def _rule_json(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "statement": rule.statement,
        "operators": list(rule.operators),
        "products": list(rule.products),
        "contracts": list(rule.contracts),
        "paths": list(rule.paths),
        "level": rule.level,
        "checked": rule.checked,
        "source": rule.source,
        "note": rule.note,
    }
