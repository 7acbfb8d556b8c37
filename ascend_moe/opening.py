"""Whose kernels serve a group on an NPU: the ranks agree before its first eager call, through the rendezvous store.

``libcust_opapi.so`` decides once per EP group, with all ranks together (``kernels/op_api/agreement.h``). By itself it
can only ask them with a collective on that group. Here is a store, which costs no link between the devices, and a
rank that has no library of ours can say so instead of keeping the others waiting: it leaves its word and waits for
nobody, for CANN's operator is all it can run.

The words travel as they are, 256 bytes that only the library reads. What opening ended in is remembered there and
told by the call that follows.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

from ascend_moe.hardware.lookup import library_taken
from ascend_moe.ranks import capturing, process_group

# struct Word of kernels/op_api/agreement.h: magic, format, round, verdict, library, require, reserved, why.
WORD = struct.Struct("<8I224s")
MAGIC, FORMAT, STOCK = 0x44524F57, 1, 2
NO_LIBRARY = "its process has no library of ascend_moe (ascend-moe env)"
PROBLEM_BYTES = 1024
DECIDED = 1

_EXCHANGE = ctypes.CFUNCTYPE(
    None,
    ctypes.c_char_p,  # name of the group
    ctypes.c_void_p,  # the own word
    ctypes.c_int64,  # seconds to wait
    ctypes.c_void_p,  # room for the words of all ranks
    ctypes.POINTER(ctypes.c_uint32),  # for how many; then how many there are
    ctypes.c_void_p,  # room for a text
)


class _Opening(ctypes.Structure):
    """struct ascend_moe_opening of kernels/op_api/store_exchange.cpp."""

    _fields_ = [
        ("op", ctypes.c_char_p),
        ("group_ep", ctypes.c_char_p),
        ("ep_world_size", ctypes.c_int64),
        ("ep_rank_id", ctypes.c_int64),
        ("group_tp", ctypes.c_char_p),
        ("tp_world_size", ctypes.c_int64),
        ("tp_rank_id", ctypes.c_int64),
        ("comm_alg", ctypes.c_char_p),
    ]


_opened: set[str] = set()
_exchanges: dict[str, int] = {}


def open_once(op: str, call: Mapping[str, Any]) -> None:
    """Decides with the other ranks whose kernels serve ``group_ep``, if that is open; raises nothing.

    op: "dispatch" or "combine".
    call: its keywords, with tensors on an NPU. During a graph capture nothing happens.
    """
    name = call["group_ep"]
    if name in _opened or capturing():
        return
    groups = [name] + ([call["group_tp"]] if call["tp_world_size"] == 2 else [])
    if any(process_group(group) is None for group in groups):
        _opened.add(name)  # no store: the library asks by itself
        return
    loaded = library()
    if loaded is None:
        for group in reversed(groups):
            _publish(group, WORD.pack(MAGIC, FORMAT, 1, STOCK, 0, 0, 0, 0, NO_LIBRARY.encode()))
        _opened.add(name)
        return
    opening = _Opening(
        f"npu_moe_distribute_{op}_v2".encode(),
        name.encode(),
        call["ep_world_size"],
        call["ep_rank_id"],
        call["group_tp"].encode(),
        call["tp_world_size"],
        call["tp_rank_id"],
        call["comm_alg"].encode(),
    )
    npu: Any = torch
    with npu.npu.device(call["expert_ids"].device):
        if loaded.ascend_moe_open_group(ctypes.byref(opening), _exchange) == DECIDED:
            _opened.add(name)


@cache
def library() -> ctypes.CDLL | None:
    """Our library, where torch_npu takes the operators from it."""
    path = library_taken(os.environ)
    if path is None:
        return None
    loaded = ctypes.CDLL(str(path))
    return loaded if hasattr(loaded, "ascend_moe_open_group") else None


def _publish(name: str, word: bytes) -> tuple[Any, dist.ProcessGroup, str]:
    """Leaves the word of this rank in the store of the group, under the number of this exchange."""
    group = process_group(name)
    assert group is not None
    lookup: Any = c10d
    store = lookup._get_process_group_store(group)
    number = _exchanges[name] = _exchanges.get(name, 0) + 1
    key = f"ascend_moe/kernels/{name}/{number}"
    store.set(f"{key}/{group.rank()}", word)
    return store, group, key


def _gather(name: bytes, own: int, limit_s: int, words: int, ranks: Any, problem: int) -> None:
    """The library's Exchange: gives the own word, collects all others until the time is up."""
    try:
        store, group, key = _publish(name.decode(), ctypes.string_at(own, WORD.size))
        deadline = time.monotonic() + limit_s
        ranks[0] = min(group.size(), ranks[0])
        late = 0
        for rank in range(ranks[0]):
            left = timedelta(seconds=max(deadline - time.monotonic(), 0.001))
            try:
                store.wait([f"{key}/{rank}"], left)
                word = store.get(f"{key}/{rank}")
            except RuntimeError:
                late += 1
                continue
            ctypes.memmove(words + rank * WORD.size, word.ljust(WORD.size, b"\0"), WORD.size)
        if late:
            _tell(problem, "through the rendezvous store of torch.distributed")
    except Exception as error:  # must not pass through the library
        _tell(problem, f"the rendezvous store of torch.distributed: {error}")


def _tell(problem: int, text: str) -> None:
    told = text.encode("ascii", "replace")[: PROBLEM_BYTES - 1] + b"\0"
    ctypes.memmove(problem, told, len(told))


_exchange = _EXCHANGE(_gather)
