"""What an entry of the tables of errors is.

An entry says what a code means whoever met it; `causes` are the suspects when dispatch or combine did.
The tables are runtime.py, aclnn.py, hccl.py and symptoms.py; docs/errors.md is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ascend_moe.diagnosis.causes import CAUSES

# What kind of failure a code is: who can be blamed for it, and what it may follow.
REFUSED = "refused"  # on the host, before anything ran
SET_UP = "set up"  # on the host, while resources were taken
HANG = "hang"  # something waited too long
CRASH = "crash"  # a kernel stopped with an exception
ECHO = "echo"  # reported by whoever touched the device next
MEMORY = "memory"
LINK = "link"
OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """One recognisable number, class or line.

    Attributes:
        name: what it is called in docs/errors.md; the number where there is one.
        meaning: what happened, whoever met it.
        kind: one of the kinds above.
        symbol: the name in the header.
        advice: what to do first.
        causes: keys of causes.py, the likeliest first.
        source: where the meaning stands.
    """

    name: str
    meaning: str
    kind: str = OTHER
    symbol: str = ""
    advice: str = ""
    causes: tuple[str, ...] = ()
    source: str = ""

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules behind the suspects, without those that need more of a log."""
        found = (rule for key in self.causes if not CAUSES[key].needs for rule in CAUSES[key].rules)
        return tuple(dict.fromkeys(found))


# Where the classes of runtime.py and aclnn.py stand.
ERROR_CODES = "runtime 681ef7610, src/dfx/error_manager/error_code.json"
