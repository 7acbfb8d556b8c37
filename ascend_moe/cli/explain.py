"""ascend-moe explain: a rule, an error number, or the log of a failed run."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ascend_moe.cli.table import pairs, paragraph
from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import example_call, example_settings
from ascend_moe.contract.rules import RULES_BY_ID, Rule
from ascend_moe.diagnosis.symptoms import SYMPTOMS, Symptom, recognise

LOG_MAX_BYTES = 2**26
LINE_MAX = 4000
RULE_ID = re.compile(r"(?i)[xdce]-\d{2}")


class Finding(NamedTuple):
    """A symptom, where it first stood, how often, and what its numbers say."""

    symptom: Symptom
    line: int
    times: int
    details: tuple[str, ...]


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
    if RULE_ID.fullmatch(what):
        rule = RULES_BY_ID.get(what.upper())
        if rule is None:
            return _fail(f"no rule {what.upper()}; docs/constraints.md lists all")
        print(json.dumps({"rule": _rule_json(rule)}) if arguments.json else rule_text(rule))
        return 0
    numbered = [symptom for symptom in SYMPTOMS if symptom.name == what]
    if numbered:
        findings = [Finding(symptom, 0, 0, ()) for symptom in numbered]
    else:
        try:
            data = _read(what)
        except OSError as error:
            return _fail(f"{what!a}: {error.strerror or 'cannot be read'}, and it is no rule id")
        except ValueError as error:  # a null byte in the name
            return _fail(f"{what!a}: {error}")
        findings = diagnose(data.decode("utf-8", "replace").splitlines())
        rules = _rules_named(data)
        if not findings and rules:
            print("\n\n".join(rule_text(rule) for rule in rules))
            return 0
    if not findings:
        return _fail("nothing recognised: no line is a known symptom of these operators")
    if arguments.json:
        print(json.dumps({"findings": [_finding_json(finding) for finding in findings]}))
    else:
        print("\n\n".join(_finding_text(finding) for finding in findings))
    return 0


def _fail(reason: str) -> int:
    print(f"ascend-moe explain: {reason}", file=sys.stderr)
    return 2


def _read(what: str) -> bytes:
    """The last LOG_MAX_BYTES of a file, or the first of standard input."""
    if what == "-":
        return sys.stdin.buffer.read(LOG_MAX_BYTES)
    with Path(what).open("rb") as stream:
        if stream.seekable():
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - LOG_MAX_BYTES))
        return stream.read(LOG_MAX_BYTES)


def diagnose(lines: Iterable[str]) -> list[Finding]:
    """The symptoms in a log, in the order of docs/errors.md: what says most comes first."""
    found: dict[str, Finding] = {}
    for number, line in enumerate(lines, start=1):
        line = line[:LINE_MAX]
        for symptom in recognise(line):
            details = tuple(symptom.details(line)) if symptom.details else ()
            earlier = found.get(symptom.name)
            if earlier is None:
                found[symptom.name] = Finding(symptom, number, 1, details)
            else:
                # Ranks repeat each other; what differs between their numbers is worth reading.
                new = tuple(detail for detail in details if detail not in earlier.details)
                found[symptom.name] = earlier._replace(
                    times=earlier.times + 1, details=(*earlier.details, *new)[:12]
                )
    return [found[symptom.name] for symptom in SYMPTOMS if symptom.name in found]


def _rules_named(data: bytes) -> list[Rule]:
    """Rules of our own messages: lines that begin with a rule id and a level."""
    ids = re.findall(rb"(?m)^\W{0,8}([XDCE]-\d{2}) (?:error|warning) ", data[:LOG_MAX_BYTES])
    return [
        RULES_BY_ID[name] for each in dict.fromkeys(ids) if (name := each.decode()) in RULES_BY_ID
    ]


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
    symptom = finding.symptom
    where = f"line {finding.line}" + (f", {finding.times} times" if finding.times > 1 else "")
    rows: list[tuple[str, object]] = [
        ("found", f"{symptom.name}" + (f" ({where})" if finding.line else "")),
        ("means", symptom.meaning),
    ]
    rows += [("numbers" if index == 0 else "", text) for index, text in enumerate(finding.details)]
    rows.append(("do", symptom.advice))
    text = pairs(rows)
    if symptom.rules:
        rules = [f"{name} {RULES_BY_ID[name].statement}" for name in symptom.rules]
        text += "\nrules\n" + "\n".join(paragraph(rule, "  ") for rule in rules)
    return text


def _finding_json(finding: Finding) -> dict[str, object]:
    return {
        "name": finding.symptom.name,
        "line": finding.line,
        "times": finding.times,
        "meaning": finding.symptom.meaning,
        "details": list(finding.details),
        "advice": finding.symptom.advice,
        "rules": list(finding.symptom.rules),
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
