"""Agreement of the ranks before device calls: once per group, through the rendezvous store.

On CPU the statements travel with every call (``cpu/exchange.py``). On a device nothing may travel but the operators'
own rows: the EP communicator is dedicated to them. So the first call on a group meets in the store of its process
group, under a key that holds nothing but the group and how often it was tried: a rank cannot miss the meeting because
one of *its* arguments differs. During graph capture nothing happens; the next call outside a capture meets.

Later calls cost one dictionary look-up.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.contract.agreement import disagreements, refusal_of, statement
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.errors import ConstraintError, PeerError, Violation
from ascend_moe.contract.path import path_of
from ascend_moe.contract.resolve import resolve_contract, resolve_product
from ascend_moe.gate import require_legal
from ascend_moe.patience import TIMEOUT_VARIABLE, timeout_seconds

_met: set[str] = set()
_met_before_fork: set[str] = set()
"""Of the parent. Its device is not open here: calls would wait for ever for threads that the fork left behind."""
_window_mb: dict[str, int | None] = {}
_attempts: dict[str, int] = {}


def require_legal_on_all_ranks(op: str, call: Mapping[str, Any]) -> None:
    """This rank's own checks, then `meet_once`, whatever they found.

    call: every parameter of the operator; tensors may be described.
    """
    try:
        require_legal(op, call, window_mb=window_mb_of(call["group_ep"]))
    except ConstraintError as refusal:
        meet_once(op, call, refusal)
        raise
    meet_once(op, call, None)


def meet_once(op: str, call: Mapping[str, Any], refusal: ConstraintError | None) -> None:
    """Compares this rank's statement with its peers' at the first call on ``group_ep``.

    refusal: what this rank's own checks found. It is told to the peers, and raised by the caller.

    Raises ConstraintError on every rank when the ranks disagree or one refuses, PeerError naming the ranks that did
    not come within ``ASCEND_MOE_TIMEOUT_S`` seconds; PeerError too in a process that was forked from a rank of it.
    """
    name = call["group_ep"]
    if name in _met or capturing():
        return
    if name in _met_before_fork:
        text = "this process was forked from a rank of it, whose device it cannot use; start ranks before, or by spawn"
        raise PeerError(
            f"npu_moe_distribute_{op}_v2: the group {name!a} cannot be used: {text}", ()
        )
    if not _met:
        os.register_at_fork(after_in_child=_after_fork)
    group = process_group(name)
    if group is None:  # a communicator that torch.distributed does not know: nowhere to meet
        _met.add(name)
        return
    reason = str(refusal.violations[0]) if refusal else ""
    attempt = _attempts[name] = _attempts.get(name, 0) + 1
    meeting = Meeting(group, f"ascend_moe/{name}/{attempt}")
    product, contract = resolve_product(), resolve_contract(op, call)
    path = path_of(call, product=product.name, contract=contract.name)
    meeting.state(statement(op, call, path=path, values=False), reason)
    if refusal:
        return
    found = meeting.findings(f"npu_moe_distribute_{op}_v2")
    if found:
        raise constraint_error(op, call, found, product, contract)
    _met.add(name)


def met_otherwise(name: str) -> None:
    """Nobody has to come to the meeting of this group any more: some of its ranks cannot, the others have met."""
    _met.add(name)


def _after_fork() -> None:
    _met_before_fork.update(_met)
    _met.clear()


class Meeting:
    """One exchange of statements through the store of a process group."""

    def __init__(self, group: dist.ProcessGroup, key: str) -> None:
        self._group, self._key = group, key
        lookup: Any = c10d
        self._store = lookup._get_process_group_store(group)

    def state(self, numbers: Mapping[str, int], refusal: str) -> None:
        """Leaves this rank's statement for the others."""
        self._store.set(f"{self._key}/{self._group.rank()}", json.dumps([numbers, refusal]))

    def findings(self, what: str) -> list[Violation]:
        """Waits for all statements and compares them; the same list on every rank."""
        seconds = timeout_seconds()
        deadline = time.monotonic() + seconds
        numbers, found, absent = [], [], []
        for rank in range(self._group.size()):
            key = f"{self._key}/{rank}"
            left = timedelta(seconds=max(deadline - time.monotonic(), 0.001))
            try:
                self._store.wait([key], left)
            except RuntimeError:
                absent.append(rank)
                continue
            given, refusal = json.loads(self._store.get(key))
            numbers.append(given)
            if refusal:
                found.append(refusal_of("rank", rank, refusal))
        if absent:
            ranks = ", ".join(map(str, absent))
            raise PeerError(
                f"{what} on rank {self._group.rank()}: rank {ranks} did not arrive at its first call "
                f"within {seconds:g} s ({TIMEOUT_VARIABLE})",
                absent,
            )
        return disagreements(numbers) + found


def window_mb_of(name: str) -> int | None:
    """The group's own ``hccl_buffer_size`` in MB, where its process group was made with one; looked up once."""
    if name not in _window_mb:
        group = process_group(name)
        backend: Any = group._get_backend(torch.device("npu")) if group is not None else None
        config = getattr(getattr(backend, "options", None), "hccl_config", None) or {}
        size = config.get("hccl_buffer_size")
        _window_mb[name] = int(size) if size else None
    return _window_mb[name]


def capturing() -> bool:
    """Whether a graph is being captured on the current stream, so that nothing may wait."""
    npu = getattr(torch, "npu", None)
    return npu is not None and bool(npu.is_current_stream_capturing())


def process_group(name: str) -> dist.ProcessGroup | None:
    """The process group whose HCCL communicator has this name."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    lookup: Any = c10d
    for group in lookup._world.pg_map:
        if "hccl" not in dist.get_backend_config(group):
            continue
        backend: Any = group._get_backend(torch.device("npu"))
        if backend.get_hccl_comm_name(dist.get_rank(), init_comm=False) == name:
            found: dist.ProcessGroup = group
            return found
    return None
