"""One thing that a log says, or that the tables say about a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ascend_moe.diagnosis.causes import CAUSES, Cause
from ascend_moe.diagnosis.entry import ECHO, REFUSED, Entry
from ascend_moe.diagnosis.lines import Line
from ascend_moe.diagnosis.symptoms import CATALOGUE, MTE, Symptom

OURS, ANOTHER, UNKNOWN = "dispatch or combine", "another operator", "not named in the log"
DETAILS_MAX = 12
QUOTES_MAX = 3
QUOTE_CHARACTERS = 300


@dataclass
class Finding:
    """One thing that a log says.

    Attributes:
        name: as in docs/errors.md, or of the rule or operator.
        owner: OURS, ANOTHER or UNKNOWN.
        operator: its name, where the log names it.
        line, times: where it first stood, and how often; 0 where there is no log.
        meaning: what happened.
        details: what the numbers say.
        advice: what to do first.
        causes: suspects, the likeliest first.
        rules: ids of the rules behind it.
        evidence: (number, words) of lines.
    """

    name: str
    meaning: str
    owner: str = UNKNOWN
    operator: str = ""
    line: int = 0
    times: int = 0
    details: list[str] = field(default_factory=list)
    advice: str = ""
    causes: list[Cause] = field(default_factory=list)
    rules: tuple[str, ...] = ()
    evidence: list[tuple[int, str]] = field(default_factory=list)

    def see(self, line: Line) -> None:
        """Count a line and keep it as evidence."""
        self.line = min(self.line or line.number, line.number)
        self.times += line.times
        quote = quoted(line.text)
        if len(self.evidence) < QUOTES_MAX and quote not in (words for _, words in self.evidence):
            self.evidence.append((line.number, quote))

    def tell(self, details: Iterable[str]) -> None:
        """Add what is not said yet."""
        new = [detail for detail in details if detail not in self.details]
        self.details = [*self.details, *new][:DETAILS_MAX]


def quoted(text: str) -> str:
    """A line as evidence: short, and in ASCII."""
    text = " ".join(text.encode("ascii", "backslashreplace").decode("ascii").split())
    text = re.sub(r"[\x00-\x1f\x7f]", "?", text)
    if len(text) > QUOTE_CHARACTERS:
        telling = _TELLING.search(text)
        start = max(telling.start() - 20, 0) if telling else 0
        text = ("..." if start else "") + text[start:]
    return text if len(text) <= QUOTE_CHARACTERS else text[: QUOTE_CHARACTERS - 3] + "..."


_TELLING = re.compile(
    r"\bE[EIJLZ]\d{4}|[XDCES]-\d\d (?:error|warning)|BUFFSIZE|aclnn|fault kernel|MTE instruction|rror code|\b507\d\d\d"
)


def of_name(name: str) -> Finding | None:
    """What the tables say about a number, class or line, without a log."""
    entry = CATALOGUE.get(name)
    if entry is None:
        return None
    causes = [CAUSES[key] for key in entry.causes]
    return Finding(entry.name, entry.meaning, advice=entry.advice, causes=causes, rules=entry.rules)


def of_entry(entry: Entry, owner: str, hints: Mapping[str, object] | None = None) -> Finding:
    """What the tables say, the suspects in the order that the hints of the log give them."""
    present = frozenset(hints or ())
    causes = [CAUSES[key] for key in entry.causes if CAUSES[key].needs <= present]
    if any("aiv" in cause.needs for cause in causes):
        causes = [cause for cause in causes if cause is not CAUSES["aiv"]]
    causes.sort(key=lambda cause: not cause.hints & present)
    said = entry.said if isinstance(entry, Symptom) else ()
    rules = (*said, *(rule for cause in causes for rule in cause.rules))
    advice = entry.advice or (causes[0].remedy if causes else "")
    return Finding(
        entry.name,
        entry.meaning,
        owner,
        advice=advice,
        causes=causes,
        rules=tuple(dict.fromkeys(rules)),
    )


def rank(finding: Finding) -> tuple[int, int]:
    """Reasons first, in the order of the log; then what was seen; codes that say little last."""
    entry = CATALOGUE.get(finding.name)
    if finding.owner == ANOTHER:
        return 0, finding.line
    if entry is None or isinstance(entry, Symptom):
        return (2 if entry is MTE else 1), finding.line
    if entry.kind in (REFUSED, ECHO):
        return 5, finding.line
    return (3 if entry.name.startswith("EI") else 4), finding.line
