"""The tokens of all ranks as one batch, so that a world is planned once and not once per rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ascend_moe.reference.routing import active_pairs


class Batch(NamedTuple):
    """The N tokens of one EP group, in the order of the ranks; a rank's tokens are neighbours."""

    ids: Tensor
    """int64 (N, K) chosen experts."""
    active: Tensor
    """bool (N, K): pairs that take part."""
    source: Tensor
    """int64 (N,) EP rank that owns the token."""
    token: Tensor
    """int64 (N,) index of the token on that rank."""
    first: Tensor
    """int64 (ranks,) where each rank's tokens begin."""
    sizes: Tensor
    """int64 (ranks,) BS of each rank."""

    @classmethod
    def of(cls, calls: Sequence[Mapping[str, Any]]) -> Batch:
        """The batch of one EP group's calls, of either operator."""
        ids = torch.cat([call["expert_ids"] for call in calls])
        sizes = torch.tensor([call["expert_ids"].size(0) for call in calls])
        first = sizes.cumsum(0) - sizes
        source = torch.repeat_interleave(sizes)
        return cls(
            ids=ids.long(),
            active=_active(calls, ids),
            source=source,
            token=torch.arange(len(ids)) - first[source],
            first=first,
            sizes=sizes,
        )

    def owner(self, index: int) -> tuple[int, int]:
        """(rank, index there) of a token of the batch."""
        return int(self.source[index]), int(self.token[index])


def _active(calls: Sequence[Mapping[str, Any]], ids: Tensor) -> Tensor:
    if all(call["x_active_mask"] is None for call in calls):
        return active_pairs(ids, None)
    return torch.cat([active_pairs(call["expert_ids"], call["x_active_mask"]) for call in calls])
