"""From the facts of a log to findings: what happened, to whom, on which lines, why, and what to do.

    lines.py -> facts.py -> verdict.py -> findings here

Advice about dispatch and combine is given where one of them failed, or where the log names no operator. The
failure of another operator is named and quoted and otherwise left alone.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from ascend_moe.contract.defects import DEFECTS_BY_ID
from ascend_moe.contract.rules import RULES_BY_ID
from ascend_moe.diagnosis.details import name_of_refusal, of_allocation, of_refusal
from ascend_moe.diagnosis.entry import HANG, LINK, MEMORY, REFUSED, Entry
from ascend_moe.diagnosis.facts import (
    BUFFER_LINE,
    CHAIN,
    CLASS,
    CODE,
    NAMED,
    REFUSAL,
    RULE,
    SYMPTOM,
    Fact,
    facts,
)
from ascend_moe.diagnosis.finding import ANOTHER, OURS, UNKNOWN, Finding, of_entry, quoted, rank
from ascend_moe.diagnosis.hccl import HCCL_RESULTS
from ascend_moe.diagnosis.lines import read_lines
from ascend_moe.diagnosis.log import Log
from ascend_moe.diagnosis.remedies import REMEDIES
from ascend_moe.diagnosis.symptoms import CATALOGUE, DRIVER, VARIABLE
from ascend_moe.diagnosis.verdict import Evidence, key_of
from ascend_moe.diagnosis.window_log import window_details

LOG_MAX_BYTES = 2**30


def diagnose(stream: BinaryIO, limit: int = LOG_MAX_BYTES) -> list[Finding]:
    """The findings of a log, what says most first; empty where nothing in it is known."""
    log = Log()
    for line in read_lines(stream, limit):
        for fact in facts(line):
            log.add(fact)
    return _Report(log).findings()


class _Report:
    """Findings, collected by what they are about."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.blamed = log.verdict.blamed()
        self.followers = log.verdict.followers()
        self.ours = any(each.operator.ours for each in self.blamed) or log.verdict.own_rules
        self.others = any(not each.operator.ours for each in self.blamed)
        self.found: dict[tuple[object, ...], Finding] = {}

    def findings(self) -> list[Finding]:
        kept = sorted(self.log.all(), key=lambda fact: fact.line.number)
        for fact in kept:
            self._take(fact)
        if not self.found:
            for fact in kept:
                self._take_what_says_little(fact)
        self._reasons()
        self._followers()
        self._hints()
        found = list(self.found.values())
        hint = self.log.hints.get("driver")
        if hint is not None and (not self.others or self.ours):
            finding = of_entry(DRIVER, OURS if self.ours else UNKNOWN)
            finding.see(hint.line)
            found.append(finding)
        return sorted(found, key=rank)

    def _take(self, fact: Fact) -> None:
        owner = self.log.verdict.owner(fact)
        if fact.kind == RULE:
            rule = RULES_BY_ID.get(fact.name)
            says = DEFECTS_BY_ID[fact.name].happens if rule is None else rule.statement
            finding = self._finding(
                (RULE, fact.name), fact.name, says, OURS, "", rules=(fact.name,)
            )
            finding.advice = REMEDIES.get(fact.name, "")
            finding.see(fact.line)
        elif fact.entry is VARIABLE:
            self._variable(fact)
        elif fact.kind == CLASS and fact.name.startswith("EI"):
            self._class(fact)
        elif owner is not None and not owner.operator.ours:
            if owner in self.blamed:
                self._another(fact, owner)
        elif owner is not None and owner not in self.blamed:
            return  # ours, but only a follower
        elif owner is None and self.others and not self.ours and fact.kind != CLASS:
            return
        else:
            self._ours(fact, owner)

    def _ours(self, fact: Fact, owner: Evidence | None) -> None:
        """A fact of dispatch or combine, or of nobody that the log names."""
        said = OURS if owner is not None or self.ours else UNKNOWN
        name = owner.operator.name if owner is not None else ""
        if fact.kind == REFUSAL:
            self._refusal(fact, said, name)
        elif fact.kind == BUFFER_LINE:
            finding = self._finding(
                (BUFFER_LINE,), fact.name, _meaning(fact.entry), said, name, fact.entry
            )
            finding.see(fact.line)
            finding.tell(window_details(fact.line.text, fact.operator))
        elif fact.kind in (CODE, SYMPTOM) and fact.entry is not None:
            entry = HCCL_RESULTS[fact.result] if fact.result is not None else fact.entry
            key = (fact.kind, fact.name, fact.result)
            finding = self._finding(key, fact.name, _meaning(fact.entry), said, name, entry)
            finding.see(fact.line)
            if fact.result is not None:
                finding.tell([f"HCCL returned {fact.result}: {entry.symbol}. {entry.meaning}"])
            finding.tell(of_allocation(fact) if entry.kind == MEMORY else ())
        elif (
            fact.kind == CLASS
            and fact.entry is not None
            and fact.entry.kind in (HANG, LINK, MEMORY)
        ):
            finding = self._finding(
                (CLASS, fact.name), fact.name, _meaning(fact.entry), said, name, fact.entry
            )
            finding.see(fact.line)

    def _class(self, fact: Fact) -> None:
        """HCCL's own error: about the group, whichever operator runs in it."""
        entry = fact.entry
        assert entry is not None
        owner = OURS if self.ours else UNKNOWN
        finding = self._finding((CLASS, fact.name), fact.name, entry.meaning, owner, "HCCL", entry)
        if self.others and not self.ours:
            finding.causes, finding.rules = [], ()
        finding.see(fact.line)

    def _variable(self, fact: Fact) -> None:
        finding = self._finding(
            ("variable",), VARIABLE.name, VARIABLE.meaning, UNKNOWN, "", VARIABLE
        )
        finding.see(fact.line)
        value = re.search(
            r"Value (\S{1,60}) for environment|HCCL_BUFFSIZE\W{1,4}([\w.+-]{1,40})", fact.line.text
        )
        text = next((group for group in value.groups() if group), "") if value else ""
        digits = re.match(r"\d{1,9}(?=\s?(?:[mM][bB]?|MiB)?$)", text)
        if text:
            finding.tell([f"the variable is {text!a}."])
        if digits and int(digits[0]):
            finding.tell([f"export HCCL_BUFFSIZE={int(digits[0])}"])

    def _refusal(self, fact: Fact, owner: str, name: str) -> None:
        refused = fact.refusal
        if refused is None:
            title = fact.name or "a check"
            key: tuple[object, ...] = (REFUSAL, fact.line.text)
            finding = self._finding(
                key,
                title,
                "A check of the operator refused the call, for the reason quoted.",
                owner,
                name,
            )
            finding.see(fact.line)
            return
        main = refused.rules[0]
        shape = re.sub(r"\d+", "0", fact.line.text)
        finding = self._finding(
            (REFUSAL, main, shape),
            name_of_refusal(main, fact.line.text),
            RULES_BY_ID[main].statement,
            owner,
            name,
            rules=refused.rules,
        )
        finding.advice = REMEDIES.get(
            main, f"Change {RULES_BY_ID[main].param}: the rule says what it may be."
        )
        finding.see(fact.line)
        finding.tell(of_refusal(fact))

    def _another(self, fact: Fact, owner: Evidence) -> None:
        """Another operator's failure: named, quoted, nothing computed and no rule of ours."""
        operator = owner.operator
        what = f" ({operator.what})" if operator.what else ""
        key = ("another", key_of(operator))
        finding = self._finding(
            key,
            f"another operator: {operator.name}",
            f"{operator.name}{what} failed, not dispatch or combine: outside these two operators.",
            ANOTHER,
            operator.name,
        )
        finding.see(fact.line)
        if fact.entry is not None and fact.kind in (CODE, SYMPTOM):
            finding.tell([f"{fact.name}: {fact.entry.meaning}"])
        if fact.kind == REFUSAL:
            finding.tell([f"reason, line {fact.line.number}: {quoted(fact.line.text)}"])
        if fact.kind == BUFFER_LINE:
            finding.tell(["its buffer has a sum of its own; the number is that of its line."])
            finding.tell(window_details(fact.line.text, operator))
        finding.advice = f"Look for the cause at {operator.name}."

    def _take_what_says_little(self, fact: Fact) -> None:
        """What is worth a word only when a log says nothing else."""
        owner = self.log.verdict.owner(fact)
        if owner is not None and not owner.operator.ours:
            if owner in self.blamed:
                self._another(fact, owner)
            return
        if fact.kind in (CLASS, CHAIN) and fact.entry is not None:
            name = owner.operator.name if owner else ""
            said = OURS if owner else UNKNOWN
            finding = self._finding(
                (CLASS, fact.name), fact.name, fact.entry.meaning, said, name, fact.entry
            )
            finding.see(fact.line)
        elif fact.kind == NAMED and owner is not None:
            finding = self._finding(
                ("named", owner.operator.op),
                owner.operator.name,
                "The operator failed; the log does not say why.",
                OURS,
                owner.operator.name,
            )
            finding.advice = (
                "Make the call through ascend_moe (ascend_moe.install()), which checks it first, and look into the "
                "plog (~/ascend/log/debug/plog)."
            )
            finding.see(fact.line)

    def _reasons(self) -> None:
        """A code that only says "refused" points at the reason, where the log has it."""
        reasons = [
            finding
            for key, finding in self.found.items()
            if key[0] in (REFUSAL, BUFFER_LINE, RULE) and finding.owner != ANOTHER
        ]
        if not reasons:
            return
        lines = ", ".join(str(line) for line in sorted({finding.line for finding in reasons})[:6])
        for key, finding in self.found.items():
            if key[0] == CODE and CATALOGUE[finding.name].kind == REFUSED:
                finding.advice = f"The reason is in line {lines}: see above."
                finding.causes, finding.rules = [], ()

    def _followers(self) -> None:
        if not self.found or not self.blamed:
            return
        first = self.blamed[0].operator.name
        texts = [
            f"{each.operator.name} (line {each.line}) only follows: it waited for or reports what {first} did."
            for each in self.followers[:4]
        ]
        finding = min(self.found.values(), key=rank)
        finding.tell(texts)

    def _hints(self) -> None:
        """The lines that moved suspects to the front are evidence too."""
        for finding in self.found.values():
            for hint in sorted({hint for cause in finding.causes for hint in cause.hints}):
                fact = self.log.hints.get(hint)
                quote = None if fact is None else (fact.line.number, quoted(fact.line.text))
                if quote is not None and quote not in finding.evidence:
                    finding.evidence.append(quote)

    def _finding(
        self,
        key: tuple[object, ...],
        name: str,
        meaning: str,
        owner: str,
        operator: str,
        entry: Entry | None = None,
        rules: tuple[str, ...] = (),
    ) -> Finding:
        found = self.found.get(key)
        if found is None:
            found = self.found[key] = Finding(name, meaning, owner, operator, rules=rules)
            if entry is not None:
                filled = of_entry(entry, owner, self.log.hints)
                found.advice, found.causes = filled.advice, filled.causes
                found.rules = rules or filled.rules
        return found


def _meaning(entry: Entry | None) -> str:
    return entry.meaning if entry is not None else ""
