"""A broken rule is a Violation; all of them together are one ConstraintError."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def plain(value: object) -> str:
    """A value as one short line of ASCII, whatever the caller passed."""
    text = " ".join(str(value).encode("ascii", "backslashreplace").decode("ascii").split())
    return text if len(text) <= 160 else text[:157] + "..."


@dataclass(frozen=True)
class Violation:
    """One broken rule of one call.

    rule:    id in docs/constraints.md, for example "X-11"
    level:   "error" (the call is refused) or "warning" (the call runs, the user should know)
    param:   the keyword of the call, or the environment variable
    message: one ASCII sentence with the value, the limit and, where there is one, the remedy
    value, limit: the same two as objects, for programs
    """

    rule: str
    level: str
    param: str
    message: str
    value: object
    limit: object

    def __str__(self) -> str:
        return f"{self.rule} {self.level} {self.param}: {self.message}"


class ConstraintError(ValueError, RuntimeError):
    """A call breaks at least one rule. `.violations` holds all of them, in rule order.

    It is a ValueError because that is what it is, and a RuntimeError because that is what torch_npu
    raises for the same call: `except RuntimeError` of existing callers keeps working.
    """

    def __init__(self, violations: Sequence[Violation], header: str, hint: str = "") -> None:
        self.violations = tuple(violations)
        self.header = header
        self.hint = hint
        lines = [header, *(str(violation) for violation in self.violations)]
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.violations, self.header, self.hint))


class ConstraintWarning(UserWarning):
    """A rule of level "warning" was broken: the call runs."""


class PeerError(RuntimeError):
    """A peer died, closed its connection or did not arrive in time; `.ranks` are its ranks in the group."""

    def __init__(self, message: str, ranks: Sequence[int]) -> None:
        super().__init__(message, tuple(ranks))
        self.ranks = tuple(ranks)

    def __str__(self) -> str:
        return str(self.args[0])
