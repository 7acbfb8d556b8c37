"""The process group that a ``group_ep`` string names."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.contract.errors import Violation

_lookup: Any = c10d


def hccl_comm_name(group: dist.ProcessGroup | None, rank: int) -> str:
    """The string to pass as ``group_ep`` (or ``group_tp``) for a torch.distributed group.

    group: the EP group, or None for the default group
    rank:  this process's global rank, as ``get_hccl_comm_name`` of torch_npu takes it

    On an NPU group it is the name of the HCCL communicator; on any other group the name under which
    torch.distributed knows the group. Raises ValueError when ``rank`` is not a member of the group.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError("hccl_comm_name needs torch.distributed.init_process_group() first")
    members = group if group is not None else dist.group.WORLD
    if not isinstance(members, dist.ProcessGroup):
        raise ValueError(
            "this process is not a member of the group (new_group() returned no group for it)"
        )
    if rank not in dist.get_process_group_ranks(members):
        raise ValueError(
            f"rank {rank} is not in the group of ranks {dist.get_process_group_ranks(members)}"
        )
    if "hccl" in dist.get_backend_config(members):
        backend: Any = members._get_backend(torch.device("npu"))
        return str(backend.get_hccl_comm_name(rank))
    return str(members.group_name)


class Survivors:
    """The ranks that are left of a group and share memory, in new numbers: torch.distributed knows no such group."""

    def __init__(self, name: str, rank: int, size: int) -> None:
        self.group_name, self._rank, self._size = name, rank, size
        _survivors[name] = self

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size


_survivors: weakref.WeakValueDictionary[str, Survivors] = weakref.WeakValueDictionary()
titles: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""What a rank of a group of survivors is called: by its old rank in the group it is left of."""


def resolve(name: str) -> dist.ProcessGroup | None:
    """The process group of that name, or None when this process has none."""
    left: Any = _survivors.get(name)
    if left is not None:
        return left  # type: ignore[no-any-return]
    try:
        found: dist.ProcessGroup = _lookup._resolve_process_group(name)
    except (LookupError, RuntimeError, ValueError):
        return None
    return found


def call_on(group: dist.ProcessGroup, op: str) -> str:
    """Names a rank's call of an operator, for errors."""
    return f"npu_moe_distribute_{op}_v2 on {title(group)}"


def title(group: dist.ProcessGroup) -> str:
    """A rank and its group, as the caller knows them."""
    return titles.get(group) or f"rank {group.rank()} of group {group.group_name!a}"


def membership_violations(
    plane: str, call: Mapping[str, Any], group: dist.ProcessGroup | None
) -> list[Violation]:
    """Whether the call's group exists and this process is the member that the call says it is; plane: ep or tp."""
    param, rank_param = f"group_{plane}", f"{plane}_rank_id"
    name, size, rank = call[param], call[f"{plane}_world_size"], call[rank_param]
    if group is None:
        text = (
            f"{name!r} names no torch.distributed group of this process; "
            "pass ascend_moe.hccl_comm_name(group, rank) after init_process_group()"
        )
        return [Violation("E-05", "error", param, text, name, "the name of a process group")]
    found = []
    if group.size() != size:
        text = f"the group {name!r} has {group.size()} ranks, the call says {size}"
        found.append(Violation("E-05", "error", param, text, group.size(), size))
    if group.rank() != rank:
        text = f"{rank_param}={rank}, but this process is rank {group.rank()} of the group {name!r}"
        rule = "X-08" if plane == "ep" else "E-10"
        found.append(Violation(rule, "error", rank_param, text, rank, group.rank()))
    return found
