"""What lies where in the areas of dispatch and combine: a function of sizes that all ranks agree about.

Each array has an equal share per rank, so an offset and a stride say where everything is. Sizes in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from ascend_moe.contract.shapes import World

SENT_WORDS = 5
"""Rows, and where they lie in shared memory of the sender (number, descriptor, offset, size), or zeros."""


class Sizes(NamedTuple):
    """What the layouts depend on; equal on all ranks of a call."""

    world: World
    max_bs: int
    topk: int
    row_bytes: int
    """Of a row as it travels."""

    @property
    def slots(self) -> int:
        """Rows per token at most."""
        return self.topk + self.world.shared_expert_num

    @property
    def rows_received_at_most(self) -> int:
        """A of the rank that has the larger one."""
        last = self.world.ep_world_size - 1
        return max(
            self.world.rows_received_at_most(rank, max_bs=self.max_bs, topk=self.topk)
            for rank in {0, last}
        )


class DispatchLayout(NamedTuple):
    """Offsets of the rows, their scales, the tokens' weights, what each rank gives, and the lanes; and the end."""

    rows_at: int
    scales_at: int
    weights_at: int
    given_at: int
    lanes_at: int
    end: int

    @classmethod
    def of(cls, sizes: Sizes, rows_per_token: int) -> DispatchLayout:
        ranks = sizes.world.ep_world_size
        tokens = ranks * sizes.max_bs
        rows = tokens * rows_per_token
        return cls(
            *_offsets(
                rows * sizes.row_bytes,
                rows * 4,
                tokens * sizes.topk * 4,
                ranks * 8,
                tokens * sizes.slots * 4,
            )
        )


class CombineLayout(NamedTuple):
    """Offsets of the rows' places, of what each rank sends and of the lists of it; and the end."""

    rows_at: int
    sent_at: int
    lists_at: int
    end: int

    @classmethod
    def of(cls, sizes: Sizes) -> CombineLayout:
        ranks = sizes.world.ep_world_size
        places = ranks * sizes.max_bs * sizes.slots
        words = 3 * sizes.rows_received_at_most
        return cls(*_offsets(places * sizes.row_bytes, ranks * SENT_WORDS * 8, ranks * words * 4))


def _offsets(*lengths: int) -> list[int]:
    """Where each array begins, at cache lines, and where the last one ends."""
    offsets, end = [], 0
    for length in lengths:
        offsets.append(end)
        end += -(-length // 64) * 64
    return [*offsets, end]
