"""The facts of one log, each kept once, with the verdict over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ascend_moe.diagnosis.facts import CHAIN, HINT, REFUSAL, Fact
from ascend_moe.diagnosis.verdict import Verdict

FACTS_MAX = 4000  # that differ; more of them are left out
SAME_FACT_MAX = 48  # of one kind; more of them are only counted


class Log:
    """The facts of a log, each once, and the verdict over all of them."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self.facts: dict[tuple[object, ...], list[Fact]] = {}
        self.hints: dict[str, Fact] = {}
        self.times: dict[tuple[object, ...], int] = {}

    def add(self, fact: Fact) -> None:
        self.verdict.add(fact)
        if fact.kind == HINT:
            self.hints.setdefault(fact.name, fact)
            return
        operator = fact.operator.name if fact.operator else ""
        shape = re.sub(r"\d+", "0", fact.line.text)[:400] if fact.kind in (REFUSAL, CHAIN) else ""
        key = (fact.kind, fact.name, operator, fact.result, shape)
        if key not in self.facts and len(self.facts) >= FACTS_MAX:
            return
        kept = self.facts.setdefault(key, [])
        self.times[key] = self.times.get(key, 0) + fact.line.times
        if len(kept) < SAME_FACT_MAX:
            kept.append(fact)

    def all(self) -> Iterable[Fact]:
        """Every fact that was kept, with the lines it stands for."""
        for key, kept in self.facts.items():
            left = self.times[key] - sum(fact.line.times for fact in kept)
            for index, fact in enumerate(kept):
                if index == 0 and left:
                    line = fact.line._replace(times=fact.line.times + left)
                    fact = replace(fact, line=line)
                yield fact
