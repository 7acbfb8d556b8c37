"""A message of one rank to another: what it says about its call, and behind that perhaps rows.

Its receiver has room for so much before it knows what comes (`room_for`); gloo asks no more of a message than to fit.
What does not fit follows in a message of its own. Every message ends in its number, counted by group: what is there
that was not there before is known without asking anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from ascend_moe.cpu.operators.statements import STATEMENT, Statement, read
from ascend_moe.outputs import mapping

LINE: Final = 64
MESSAGE: Final = np.dtype(
    {
        "names": ["number", "rows", "bytes", "apart", "said"],
        "formats": ["i8", "i8", "i8", "i8", STATEMENT],
        "offsets": [0, 8, 16, 24, 32],
        "itemsize": -(-(32 + STATEMENT.itemsize) // LINE) * LINE,
    }
)
"""What a message begins with; ``Message`` of ``native/messages.h``."""

_ROOM_OF_ALL: Final = 32 << 20
_ROOM_AT_LEAST: Final = 4096

Bytes = NDArray[np.uint8]


def room_for(ranks: int) -> int:
    """Bytes that a rank of so many has ready for the message of each other; pages are taken when they are written."""
    return max(_ROOM_OF_ALL // ranks // LINE * LINE, _ROOM_AT_LEAST)


def length_of(size: int) -> int:
    """Of so many bytes with the number behind them."""
    return -(-(size + 8) // LINE) * LINE


def end(message: Bytes, number: int) -> None:
    """Writes the last word of a message."""
    message[-8:].view(np.int64)[0] = number


def parts(whole: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """What belongs to each rank, one behind the other."""
    return [whole[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]


class Buffer:
    """Bytes that the next call uses again: a fresh page costs several times what is written to it."""

    def __init__(self) -> None:
        self.bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> Bytes:
        """At least so many, and then the first ones."""
        if size > len(self.bytes):
            self.bytes = np.frombuffer(mapping(size + size // 4, huge_pages=True), np.uint8)
        return self.bytes[:size]

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)


@dataclass(frozen=True)
class Posted:
    """Messages on their way between all ranks; the memory must live as long as they are."""

    work: dist.Work | None
    """None when it could not even be started."""
    number: int
    announced: bool
    """Whether the sizes were known; else a message says how long it is."""
    outgoing: Bytes
    incoming: Bytes
    received: list[int]
    """Bytes ready for each rank's message, one behind the other."""

    def is_here(self, message: Bytes) -> bool:
        """Whether all of a rank's message has arrived, and it is the one expected."""
        length = len(message)
        if not self.announced:
            head = message[: MESSAGE.itemsize].view(MESSAGE)[0]
            if head["number"] != self.number:
                return False
            length = length_of(MESSAGE.itemsize + (0 if head["apart"] else int(head["bytes"])))
        if not 8 <= length <= len(message):
            return False
        return int(message[:length][-8:].view(np.int64)[0]) == self.number

    def missing(self) -> list[int]:
        """Ranks whose messages have not arrived."""
        messages = parts(self.incoming, self.received)
        return [r for r, one in enumerate(messages) if len(one) and not self.is_here(one)]

    def statements(self) -> list[Statement]:
        """What the ranks say."""
        found = []
        for message in parts(self.incoming, self.received):
            head = message[: MESSAGE.itemsize].view(MESSAGE)[0]
            found.append(read(head["said"], head["rows"]))
        return found
