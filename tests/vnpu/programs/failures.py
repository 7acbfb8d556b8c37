"""What goes wrong on purpose, and the text that reaches Python.

usage: failures.py CASE...

Each case has processes of its own; each rank prints "CASE rank R: TEXT" and leaves without a clean end, as
a failing program does.
"""

import contextlib
import ctypes
import os
import sys
import threading
import time

import ranks
import torch
import torch.distributed as dist
import torch_npu
from cann_interface import call, read


def dispatch(rank: int, *, tokens: int = 4, hidden: int = 1024, experts: int = 4, ids=None):
    x = torch.ones(tokens, hidden, dtype=torch.bfloat16).npu()
    if ids is None:
        ids = torch.arange(2).expand(tokens, 2)
    ids = ids.int().contiguous().npu()
    return torch_npu.npu_moe_distribute_dispatch_v2(x, ids, ranks.GROUPS["ep"], 2, rank, experts)


def window_too_small(rank: int) -> None:
    dispatch(rank, tokens=64, hidden=7168, experts=256, ids=torch.arange(8).expand(64, 8))


def id_out_of_range(rank: int) -> None:
    """Only rank 0 is wrong; both must hear of it."""
    dispatch(rank, ids=torch.tensor([[0, 9 if rank == 0 else 1]] * 4))


def ranks_disagree(rank: int) -> None:
    dispatch(rank, experts=4 if rank == 0 else 8)


def uneven_batch(rank: int) -> None:
    dispatch(rank, tokens=4 + rank)


def wrong_rank(rank: int) -> None:
    dispatch(1 - rank)


def dispatch_meets_combine(rank: int) -> None:
    x = torch.ones(4, 1024, dtype=torch.bfloat16).npu()
    ids = torch.arange(2).int().expand(4, 2).contiguous().npu()
    out = dispatch(rank)
    if rank == 0:
        dispatch(rank)
    else:
        weights = torch.ones(4, 2).npu()
        torch_npu.npu_moe_distribute_combine_v2(
            out[0], ids, out[2], out[4], weights, ranks.GROUPS["ep"], 2, rank, 4
        )
    del x


def dead_rank(rank: int) -> None:
    dispatch(rank)
    torch.npu.synchronize()
    if rank == 1:
        os._exit(0)
    dispatch(rank)


def call_after_failure(rank: int) -> None:
    """The error record in the window tells the next call, as it does on hardware."""
    x = torch.ones(4, 1024, dtype=torch.bfloat16).npu()
    ids = torch.arange(2).int().expand(4, 2).contiguous().npu()
    call = (x, ids, ranks.GROUPS["ep"], 2, rank, 4)
    torch_npu.npu_moe_distribute_dispatch_v2(*call)
    torch.npu.synchronize()
    if rank == 1:
        os._exit(0)
    with contextlib.suppress(RuntimeError):
        torch_npu.npu_moe_distribute_dispatch_v2(*call)
        torch.npu.synchronize()
    time.sleep(1.1)  # records are looked at once a second
    torch_npu.npu_moe_distribute_dispatch_v2(*call)


def dead_in_kernel(rank: int) -> None:
    """Rank 1 dies somewhere in a row of large calls, and so most likely while a kernel runs."""
    if rank == 1:
        threading.Timer(1.5, os._exit, (0,)).start()
    while True:
        dispatch(rank, tokens=128, hidden=7168)
        torch.npu.synchronize()


def dead_rank_in_collective(rank: int) -> None:
    dist.all_reduce(torch.ones(4).npu())
    torch.npu.synchronize()
    if rank == 1:
        os._exit(0)
    dist.all_reduce(torch.ones(4).npu())


def full_queue(rank: int) -> None:
    """What a kernel writes whose send queue stays full: a queue of HCCL's has too many places for a test to fill it."""
    full, network, dispatched = 4, 1, 1  # kernels/device/abi.h
    dispatch(rank)
    torch.npu.synchronize()
    comm, window, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_uint64()
    assert call("HcclCommGetHandleWithName", ranks.GROUPS["ep"].encode(), ctypes.byref(comm)) == 0
    assert call("HcclGetHcclBuffer", comm, ctypes.byref(window), ctypes.byref(size)) == 0
    nonce, peer = read(window.value, ctypes.c_uint32), 1 - rank
    record = (ctypes.c_uint32 * 8)(nonce, 2, peer + 1, dispatched, 0, full, network)
    room = ctypes.c_size_t(ctypes.sizeof(record))
    host_to_device = 1
    errors = ctypes.c_void_p(window.value + 512)
    assert call("aclrtMemcpy", errors, room, record, room, host_to_device) == 0
    time.sleep(1.1)  # records are looked at once a second
    dispatch(rank)


def collectives_disagree(rank: int) -> None:
    dist.all_reduce(torch.ones(4 + rank).npu())


def unknown_operator(rank: int) -> None:
    torch_npu.fast_gelu(torch.ones(2, 8).npu())


def check(rank: int, case: str) -> None:
    start = time.monotonic()
    try:
        globals()[case](rank)
        torch.npu.synchronize()
        text = "no error"
    except RuntimeError as error:
        text = " ".join(str(error).split())
    print(
        f"{case} rank {rank}: {text} (after {time.monotonic() - start:.0f} s)\n", end="", flush=True
    )
    os._exit(0)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        ranks.run(2, check, name, timeout=60)
