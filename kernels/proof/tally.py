"""What a part of the proof showed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """What a part of the proof showed: how many of its cases passed, and what went wrong, the first few in words."""

    passed: int = 0
    findings: int = 0
    deadlocks: int = 0
    mismatches: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str, problems: list[str]) -> None:
        self.passed += not problems
        for problem in problems:
            if problem.startswith("deadlock"):
                self.deadlocks += 1
            elif " differs" in problem or " written" in problem:
                self.mismatches += 1
            else:
                self.findings += 1
        self.examples = (self.examples + [f"{name}: {problem}" for problem in problems])[:10]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.passed + other.passed,
            self.findings + other.findings,
            self.deadlocks + other.deadlocks,
            self.mismatches + other.mismatches,
            (self.examples + other.examples)[:10],
        )
