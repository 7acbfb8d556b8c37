"""How the hierarchy path cuts an EP group into servers, and what it makes of a call.

Neighbouring ranks share a server. What differs between products and kernels is data in ``limits.py``: the ranks of a
server, the order of the sum inside it, and whether it has a mask. ``reference/hierarchy.py`` explains the path itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ascend_moe.contract.limits import BETWEEN, HIERARCHY, path_limits
from ascend_moe.contract.signature import CANN_9_1


@dataclass(frozen=True)
class Servers:
    """The servers of one EP group."""

    ranks_per_server: int
    sums_by_expert: bool
    """A server adds the rows of a token by ascending expert id; otherwise by ascending k."""
    ignores_mask: bool
    """Tokens that x_active_mask switches off travel and are summed like all others (A2)."""

    def heeded(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The call without what the path ignores."""
        return {**call, "x_active_mask": None} if self.ignores_mask else dict(call)

    def in_order_of_sum(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Dispatch with each token's experts and weights in the order in which their rows will be added.

        The k of a pair is then its *place* in that order. Which rows go where does not depend on k.
        """
        if not self.sums_by_expert:
            return dict(call)
        order = call["expert_ids"].argsort(dim=1, stable=True)
        columns = ("expert_ids", "expert_scales")
        return {**call, **{name: call[name].gather(1, order) for name in columns}}


def servers_of(path: str, *, product: str, contract: str) -> Servers | None:
    """The servers of a call on ``path``; None on full mesh, which knows none."""
    if path != HIERARCHY:
        return None
    limits = path_limits(CANN_9_1 if contract == BETWEEN else contract, product, HIERARCHY)
    return Servers(limits.ranks_per_server, limits.sums_by_expert, limits.mask_ignored)
