"""The caller's memory for expert outputs that combine reads in place (`rows_in_place`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ascend_moe.available import require_available
from ascend_moe.cpu.distributed.group import resolve
from ascend_moe.cpu.distributed.peers import state_of


def empty_expert_outputs(
    rows: int, hidden: int, *, dtype: torch.dtype = torch.bfloat16, group_ep: str
) -> Tensor:
    """An uninitialised CPU tensor (rows, hidden) to put expert outputs in: combine then saves a copy of every row.

    On CPU, combine copies the rows of ``expand_x`` to the ranks that own their tokens. Rows that lie in a tensor of
    this function are read where they are instead. It pays for large rows, and costs one more meeting of the ranks per
    combine. Make it once and use it for every call: each one is a shared-memory file of its own, which the peers have
    to map. Like any other tensor it is an ordinary argument everywhere else, and may be written again as soon as
    combine has returned.

    group_ep: as in the operators. The group must have made a call before; without shared memory between its ranks
        (and before that call) the result is an ordinary tensor.

    Raises OSError when the memory cannot be had (the machine or the cgroup would be left with too little), ValueError
    when a size is negative or the process has no such group.
    """
    if min(rows, hidden) < 0:
        raise ValueError(f"rows and hidden must be >= 0, got {rows} and {hidden}")
    group = resolve(group_ep)
    if group is None:
        raise ValueError(f"group_ep {group_ep!a} names no torch.distributed group of this process")
    state = state_of(group)
    windows = (state_of(state.shrunk.group) if state.shrunk else state).windows
    if windows is None:
        require_available(rows * hidden * dtype.itemsize)
        return torch.empty(rows, hidden, dtype=dtype)
    memory: Tensor = windows.in_place.new(rows * hidden * dtype.itemsize)
    return memory.view(dtype).view(rows, hidden)
