"""Ranks that a signal 9 ends in the middle of their exchanges.

usage: killed.py one | collective | all

With "one" and "collective" rank 1 goes and the others must say so; with "all" everybody goes at once.
"""

import os
import signal
import sys
import time
from pathlib import Path

import ranks
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch_npu

SIZE, HOW = 3, sys.argv[1]


def exchange(rank: int, started=None) -> None:
    x = torch.ones(4, 1024).bfloat16().npu()
    ids = torch.tensor([[0, 1]] * 4).int().npu()
    for turn in range(100_000):
        if HOW != "all" and rank == 1 and turn == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "collective":
            dist.all_reduce(torch.zeros(4).npu())
        else:
            group = ranks.GROUPS["ep"]
            torch_npu.npu_moe_distribute_dispatch_v2(x, ids, group, SIZE, rank, SIZE)
        torch.npu.synchronize()
        if started is not None and turn == 3:
            started.release()


def survive(rank: int) -> None:
    start = time.monotonic()
    try:
        exchange(rank)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        print(f"rank {rank}: {text}\n", end="", flush=True)
    assert time.monotonic() - start < 30
    os._exit(0)


def kill_everybody() -> None:
    context = mp.get_context("fork")
    started = context.Semaphore(0)
    store = f"/tmp/ascend-moe-killed-{os.getpid()}"
    processes = [
        context.Process(target=ranks._serve, args=(rank, SIZE, 1, store, exchange, (started,)))
        for rank in range(SIZE)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        assert started.acquire(timeout=60)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    Path(store).unlink()
    print("codes", [process.exitcode for process in processes])


if __name__ == "__main__":
    if HOW == "all":
        kill_everybody()
    else:
        try:
            ranks.run(SIZE, survive, timeout=60)
        except SystemExit as end:  # the codes of the ranks
            print(end)
