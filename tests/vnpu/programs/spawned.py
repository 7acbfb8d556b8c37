"""Processes that are started afresh see the device as well."""

import os

import torch
import torch.multiprocessing as mp
import torch_npu  # noqa: F401


def work(rank: int) -> None:
    torch.npu.set_device(rank)
    assert (torch.ones(2).npu() + rank).tolist() == [1.0 + rank] * 2
    assert os.environ["MINE"] == "ran"


if __name__ == "__main__":
    mp.spawn(work, nprocs=2)
    work(2)
    print("3 processes, mine", os.environ["MINE"])
