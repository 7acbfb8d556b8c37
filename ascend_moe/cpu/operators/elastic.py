"""Calls on a group that goes on without some of its ranks: made as ordinary calls of those that are left.

`contract.elastic` says what ``elastic_info`` means, `cpu.survivors` how those that are left met. A call with it is
judged as it is, in old numbers; then it is put in new ones and made on the survivors' own group, like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.signature import attributes_of, tensors_of
from ascend_moe.cpu.distributed.group import resolve
from ascend_moe.cpu.distributed.peers import state_named
from ascend_moe.cpu.operators.refusals import schema_violations
from ascend_moe.cpu.survivors.shrinking import Shrunk


def shrunk_for(call: Mapping[str, Any]) -> Shrunk | None:
    """How the group of a call goes on; None: whole, or the call says that it is."""
    state = state_named(call["group_ep"]) if isinstance(call["group_ep"], str) else None
    if state is None or state.shrunk is None or _words(call) == [0]:
        return None
    shrunk: Shrunk = state.shrunk
    return shrunk


class Left:
    """A call in old numbers, and the same among those that are left."""

    def __init__(self, op: str, given: Mapping[str, Any], shrunk: Shrunk) -> None:
        """Raises TypeError for arguments that are not of the operator's types."""
        self.given, self._shrunk = given, shrunk
        self.whole = resolve(given["group_ep"])
        assert self.whole is not None  # it is shrunk
        self.is_up_to_date = _words(given) == shrunk.words
        kinds = (one if one is None else (one.shape, one.dtype) for one in tensors_of[op](given))
        self._kind = (op, attributes_of[op](given), *kinds)
        self.is_known = self.is_up_to_date and self._kind in shrunk.legal
        """Whether the like of it was found legal."""
        if not self.is_known and schema_violations(op, given):
            raise TypeError
        changed = {"ep_rank_id": self.whole.rank()}  # whatever the call says: that is looked at
        self.call = shrunk.elastic.reduced({**given, **changed})
        self.call["group_ep"] = shrunk.group.group_name
        if given["performance_info"] is not None:
            self.call["performance_info"] = torch.zeros(shrunk.elastic.ranks, dtype=torch.int64)

    def finish(self) -> None:
        """After the call."""
        self._shrunk.legal.add(self._kind)
        info: Tensor | None = self.given["performance_info"]
        if info is not None:
            old_ranks = torch.tensor(self._shrunk.elastic.old_ranks)
            info.index_add_(0, old_ranks, self.call["performance_info"])

    def gone(self) -> list[int]:
        return self._shrunk.elastic.gone


def elastic_violations(given: Mapping[str, Any], left: Left | None) -> list[Violation]:
    """Whether those that ``elastic_info`` leaves out are those without which the others met (E-15)."""
    if given["elastic_info"] is None or (left is not None and left.is_up_to_date):
        return []
    words = _words(given)
    if words == [0]:
        return []
    elastic = Elastic.read(words, given["ep_world_size"]) if len(words) > 4 else None
    said = "other ranks" if elastic is None else f"ranks {elastic.gone}"
    if left is None:
        met = "no ranks of this group have met without others: ascend_moe.shrink(group_ep, dead_ranks) first"
    else:
        met = f"those that are left met without ranks {left.gone()}: pass what ascend_moe.shrink() returned last"
    message = f"leaves out {said}; {met}"
    return [Violation("E-15", "error", "elastic_info", message, said, "what shrink returned")]


def _words(call: Mapping[str, Any]) -> list[int]:
    """The words; [0] for those that say that nobody is gone, [] where there are none to read."""
    info = call["elastic_info"]
    if not isinstance(info, Tensor) or info.layout is not torch.strided or info.dim() != 1:
        return []
    words: list[int] = info.tolist()
    return words if words and words[0] and info.dtype == torch.int32 else words[:1]
