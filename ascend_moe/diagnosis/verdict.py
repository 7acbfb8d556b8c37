"""Whose failure it is: dispatch or combine, another operator, or nobody that the log names.

A device fails where one kernel runs; what then reports it is whoever touches the device next, and ranks
that waited for the dead one. So evidence has a strength:

    strong   a kernel that the runtime names as faulty; an operator whose own checks or resources failed
    weak     a call that returned a code of the runtime: it may only be the next one to notice

Operators with strong evidence are to blame, in the order of the log; those that only waited, or only report, come
after one that crashed and are followers. Without strong evidence the first of the weak ones is suspected. A
fact that names no operator belongs to the nearest evidence of its kind.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from ascend_moe.diagnosis.entry import CRASH, ECHO, HANG, REFUSED, SET_UP
from ascend_moe.diagnosis.facts import (
    BUFFER_LINE,
    CHAIN,
    HINT,
    NAMED,
    REFUSAL,
    RULE,
    Fact,
)
from ascend_moe.diagnosis.operators import Operator

_HOST = frozenset((REFUSED, SET_UP))
_AFTER = frozenset((HANG, ECHO))
_PLACES_MAX = 256


@dataclass
class Evidence:
    """What a log says against one operator."""

    operator: Operator
    line: int
    strong: bool = False
    kinds: set[str] = field(default_factory=set)
    host: list[int] = field(default_factory=list)  # lines in which it failed before anything ran
    device: list[int] = field(default_factory=list)  # lines in which it failed on the device

    def add(self, line: int, strong: bool, kind: str, host: bool) -> None:
        self.line = min(self.line, line)
        self.strong = self.strong or strong
        self.kinds.add(kind)
        places = self.host if host else self.device
        if len(places) < _PLACES_MAX and (not places or places[-1] < line):
            places.append(line)


class Verdict:
    """Who failed. Feed it all facts, then ask."""

    def __init__(self) -> None:
        self.evidence: dict[str, Evidence] = {}
        self.own_rules = False

    def add(self, fact: Fact) -> None:
        if fact.kind == RULE:
            self.own_rules = True
        operator = fact.operator
        if operator is None or fact.kind == HINT:
            return
        kind = fact.entry.kind if fact.entry is not None else ""
        host = fact.kind in (REFUSAL, CHAIN, BUFFER_LINE) or kind in _HOST
        if fact.kind == NAMED:
            host = fact.how in ("tiling", "binary")
        strong = fact.how in ("kernel", "tiling", "binary") or host
        if fact.how == "word" and not host:
            return
        key = key_of(operator)
        found = self.evidence.get(key)
        if found is None:
            if len(self.evidence) >= _PLACES_MAX:
                return
            found = self.evidence[key] = Evidence(operator, fact.line.number)
        found.add(fact.line.number, strong, REFUSED if host and kind not in _HOST else kind, host)

    def suspects(self) -> list[Evidence]:
        """Those to blame, first the one that failed first."""
        strong = [evidence for evidence in self.evidence.values() if evidence.strong]
        found = strong or list(self.evidence.values())
        crashed = any(CRASH in evidence.kinds for evidence in found)
        found.sort(key=lambda evidence: (crashed and self._waited(evidence), evidence.line))
        return found if strong else found[:1]

    def followers(self) -> list[Evidence]:
        """Operators that only report or repeat what the first one did."""
        suspects = self.suspects()
        if not suspects:
            return []
        first = suspects[0]
        return [
            evidence
            for evidence in self.evidence.values()
            if evidence is not first
            and (
                evidence not in suspects
                or (self._waited(evidence) and (CRASH in first.kinds or evidence.line > first.line))
            )
        ]

    @staticmethod
    def _waited(evidence: Evidence) -> bool:
        kinds = evidence.kinds - {""}
        return bool(kinds) and kinds <= _AFTER

    def blamed(self) -> list[Evidence]:
        """The suspects without the followers."""
        followers = self.followers()
        return [evidence for evidence in self.suspects() if evidence not in followers]

    def owner(self, fact: Fact) -> Evidence | None:
        """Whose fact it is; None where the log does not say."""
        if fact.operator is not None:
            return self.evidence.get(key_of(fact.operator))
        kind = fact.entry.kind if fact.entry is not None else ""
        host = fact.kind in (REFUSAL, CHAIN, BUFFER_LINE) or kind in _HOST
        candidates = self.blamed()
        fitting = [each for each in candidates if (each.host if host else each.device)]
        return _nearest(fitting or candidates, fact.line.number, host)


def key_of(operator: Operator) -> str:
    """One key for all generations of an operator."""
    if operator.ours:
        return f"ours {operator.op}"
    return re.sub(r"V\d{1,2}$", "", operator.name).lower()


def _nearest(candidates: Iterable[Evidence], line: int, host: bool) -> Evidence | None:
    best: tuple[int, Evidence] | None = None
    for evidence in candidates:
        places = (evidence.host if host else evidence.device) or evidence.host or evidence.device
        places = places or [evidence.line]
        at = bisect(places, line)
        near = min(abs(place - line) for place in places[max(at - 1, 0) : at + 1])
        if best is None or near < best[0]:
            best = near, evidence
    return None if best is None else best[1]
