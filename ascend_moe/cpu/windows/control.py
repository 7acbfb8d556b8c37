"""The control memory of a group: flags, statements, an offered area. ``native/protocol.h`` has the same."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ascend_moe.cpu.operators.statements import STATEMENT
from ascend_moe.cpu.windows.memory import Shared

BLOCK: Final = np.dtype(
    {
        "names": ["flag", "left", "mapped", "blamed", "statement"],
        "formats": ["i4", "i4", "i4", "i4", (STATEMENT, (2,))],
        "offsets": [0, 4, 8, 12, 64],
        "itemsize": -(-(64 + 2 * STATEMENT.itemsize) // 64) * 64,
    }
)
HEAD: Final = np.dtype(
    {
        "names": ["generation", "offer"],
        "formats": ["i4", ("i8", (8,))],
        "offsets": [0, 64],
        "itemsize": 128,
    }
)


NOTE_HEAD: Final = np.dtype(
    [("digest", "i8"), ("attempt", "i8"), ("stage", "i8"), ("offer", "i8", (2,))]
)
"""What a rank says when it wants to go on without others (`survivors`); a byte per rank follows: 1, it is gone."""


def control_bytes(ranks: int) -> int:
    """Head, a block per rank, two tables (by parity) of the rows that each rank sends to each rank, and the notes."""
    notes = ranks * _note_bytes(ranks)
    return HEAD.itemsize + ranks * BLOCK.itemsize + 2 * ranks * ranks * 8 + notes


def _note_bytes(ranks: int) -> int:
    return -(-(NOTE_HEAD.itemsize + ranks) // 64) * 64


class Control:
    """The fields of a control memory, without a copy."""

    def __init__(self, memory: Shared, ranks: int) -> None:
        self.memory = memory
        raw: NDArray[Any] = memory.bytes.numpy()
        blocks_end = HEAD.itemsize + ranks * BLOCK.itemsize
        self.head: NDArray[Any] = raw[: HEAD.itemsize].view(HEAD)
        self.blocks: NDArray[Any] = raw[HEAD.itemsize : blocks_end].view(BLOCK)
        self.flags: NDArray[np.int32] = self.blocks["flag"]
        self.left: NDArray[np.int32] = self.blocks["left"]
        self.mapped: NDArray[np.int32] = self.blocks["mapped"]
        self.blamed: NDArray[np.int32] = self.blocks["blamed"]
        self.statements: NDArray[Any] = self.blocks["statement"]
        """(ranks, 2): by rank and by parity of the barrier."""
        self.arrived_ns: NDArray[np.int64] = self.statements["arrived_ns"]
        tables_end = blocks_end + 2 * ranks * ranks * 8
        tables = raw[blocks_end:tables_end].view(np.int64)
        self.sending: NDArray[np.int64] = tables.reshape(2, ranks, ranks)
        """By parity, sender, receiver."""
        self.notes: NDArray[np.uint8] = raw[tables_end : control_bytes(ranks)].reshape(ranks, -1)
