"""What single lines say: numbers, classes, refusals, buffer lines, names of operators.

A fact is one statement of one line, with the line it stands in. Nothing is concluded here: verdict.py
decides whose failure it is, report.py what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ascend_moe.contract.defects import DEFECTS_BY_ID
from ascend_moe.contract.rules import RULES_BY_ID
from ascend_moe.diagnosis.entry import LINK, MEMORY, REFUSED, Entry
from ascend_moe.diagnosis.hccl import HCCL_RESULTS
from ascend_moe.diagnosis.lines import Line
from ascend_moe.diagnosis.operators import Operator, names
from ascend_moe.diagnosis.refusals import Refusal, chained, refusal
from ascend_moe.diagnosis.symptoms import (
    AIV,
    ALLOCATION,
    BUFFER,
    CLASSES,
    DRIVER,
    FUNCTION,
    IN_WORDS,
    NUMBERED,
    SYMPTOMS,
    VARIABLE,
    Symptom,
)

# Kinds of facts.
RULE = "rule"  # one of our own messages
REFUSAL = "refusal"  # a check of an operator that names what is wrong, or ends a chain
CHAIN = "chain"  # a check that only says that one before it failed
BUFFER_LINE = "buffer"
CODE = "code"  # a number, in digits or words
CLASS = "class"  # EI, EE, EZ ..
SYMPTOM = "symptom"
NAMED = "named"  # an operator that failed, with nothing else in the line
HINT = "hint"  # not a failure, but it makes a cause likelier; entry is None, name says which


@dataclass(frozen=True)
class Fact:
    """One statement of one line.

    Attributes:
        kind: one of the kinds above.
        name: of the number, class, symptom, rule or hint.
        line: where it stands.
        operator: which operator the line names; None where it names none.
        how: how it names it: kernel, call, node, tiling, binary, operator, source, word.
        entry: what the tables say.
        refusal: what a check refuses.
        result: what an HCCL function returned.
    """

    kind: str
    name: str
    line: Line
    operator: Operator | None = None
    how: str = ""
    entry: Entry | None = None
    refusal: Refusal | None = None
    result: int | None = None


_RULE = re.compile(r"(?<![\w-])([XDCES]-\d{2}) (?:error|warning) [\w\[\]]{1,60}: ")
_NUMBER = re.compile(
    r"(?<![\w.])(?<!pid=)(?<!pid )(?<!PID: )(?<!PID:)"
    r"(1070\d\d|1610\d\d|2070\d\d|361001|507\d\d\d|561\d\d\d)(?![\w]|\.\d)"
)
_FAILURE = re.compile(r"(?i)err|code|\bret|result|fail|exception|status|timeout|\bNPU\b")
_CLASS = re.compile(r"\b(E[EIJLZ]\d{4})\b")
_RESULT = re.compile(r"\b(?:ret(?:urn code)?|error code is)\s?[=:]?\s?\[?(-?\d{1,5})\b")
_CHECK = re.compile(
    r"\[F(?:UNC|ILE):\w*(?i:tiling|infershape|check)|\bOP\(\d+,|"
    r"\bMoeDistribute(?:Dispatch|Combine)(?:V\d)?: "
)
_REFUSES = re.compile(
    r"invalid|not equal to|only supports?\b|should be in|cannot work when|annot support|should be between|"
    r"must be in|must no more|is required|valid range"
)
_HINTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("servers", re.compile(r"\bR[oO]CE\b|HCCL_INTRA_ROCE_ENABLE\W{1,3}1|nnodes[ =]+[2-9]")),
    ("link", re.compile(r"error cqe|\bEI00(?:09|13|18)\b|\bEJ0002\b|\b507056\b|link (?:is )?down")),
    (
        "dead",
        re.compile(r"killed by signal|Signal 9|SIGKILL|exited with code|exitcode ?[=:] ?-?[1-9]"),
    ),
)
_OTHER_SYMPTOMS = tuple(each for each in SYMPTOMS if each is not BUFFER and each is not VARIABLE)


def facts(line: Line) -> Iterator[Fact]:
    """Everything that a line says."""
    text = line.text
    named = list(names(text))
    how, operator = named[0] if named else ("", None)
    said = False
    for found in _RULE.finditer(text):
        if found[1] in RULES_BY_ID or found[1] in DEFECTS_BY_ID:
            yield Fact(RULE, found[1], line)
            said = True
    for name, pattern in _HINTS:
        if pattern.search(text):
            yield Fact(HINT, name, line)
    if BUFFER.pattern.search(text):
        yield Fact(BUFFER_LINE, BUFFER.name, line, operator, how, BUFFER)
        return
    if VARIABLE.pattern.search(text):
        yield Fact(SYMPTOM, VARIABLE.name, line, None, "", VARIABLE)
        return
    for symptom in _OTHER_SYMPTOMS:
        if symptom.pattern.search(text):
            yield from _symptom(symptom, line, operator, how)
            said = said or not (symptom is AIV or symptom is DRIVER)
    codes = set(_codes(text))
    for code in sorted(codes):
        entry = NUMBERED[code] if code in NUMBERED else CLASSES[code]
        yield Fact(CODE, code, line, operator, how, entry)
        if entry.kind == LINK:
            yield Fact(HINT, "link", line)
        if entry.kind == MEMORY:
            yield Fact(HINT, "memory", line)
    classes = {name for name in _CLASS.findall(text) if name in CLASSES}
    if not said and not (codes and all(NUMBERED.get(code) for code in codes)):
        check = _check(line, classes, named)
        if check is not None:
            yield check
            return
    for name in sorted(classes - codes):
        yield Fact(CLASS, name, line, operator, how, CLASSES[name])
    if named and how in ("kernel", "call", "tiling", "binary", "node") and not codes:
        yield Fact(NAMED, operator.name if operator else "", line, operator, how)


def _symptom(symptom: Symptom, line: Line, operator: Operator | None, how: str) -> Iterator[Fact]:
    if symptom is AIV or symptom is DRIVER:
        yield Fact(HINT, "aiv" if symptom is AIV else "driver", line, None, "", symptom)
        return
    result = None
    if symptom is FUNCTION and ALLOCATION.pattern.search(line.text):
        return
    if symptom in (ALLOCATION, FUNCTION):
        found = _RESULT.search(line.text)
        result = int(found[1]) if found and int(found[1]) in HCCL_RESULTS else None
    yield Fact(SYMPTOM, symptom.name, line, operator, how, symptom, None, result)


def _codes(text: str) -> Iterator[str]:
    if _FAILURE.search(text):
        for found in _NUMBER.finditer(text):
            if found[1] in NUMBERED:
                yield found[1]
    for code, pattern in IN_WORDS:
        if pattern.search(text):
            yield code


def _check(line: Line, classes: set[str], named: list[tuple[str, Operator]]) -> Fact | None:
    """A line of an operator's own checks."""
    text = line.text
    how, operator = named[0] if named else ("", None)
    marked = bool(_CHECK.search(text)) or any(CLASSES[name].kind == REFUSED for name in classes)
    if not marked and not _REFUSES.search(text):
        return None
    if how in ("kernel", "tiling", "binary") or (how == "call" and not classes):
        return None
    name = min((name for name in classes if name.startswith("EZ")), default="")
    entry = CLASSES.get(name)
    if marked and chained(text):
        return Fact(CHAIN, name, line, operator, how, entry)
    if operator is not None and not operator.ours:
        return Fact(REFUSAL, name, line, operator, how, entry) if marked else None
    found = refusal(text, operator.op if operator else "")
    if found is None:
        words = len(re.findall(r"[a-z]{2,}", text))
        return Fact(REFUSAL, name, line, operator, how, entry) if marked and words > 5 else None
    if not marked and not (found.plain or "batchsize is invalid" in text):
        return None
    return Fact(REFUSAL, name, line, operator, how, entry, found)
