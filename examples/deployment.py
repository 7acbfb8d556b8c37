"""What the examples share: how ranks start; and of two, a deployment of 16 ranks and what must come out.

Two ranks hold the shared expert, fourteen hold one MoE expert each. An "expert" here multiplies its
rows by a number of its own, so that every rank can compute its result alone and compare all bits.
"""

import argparse
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch_npu

RANKS = 16
SHARED_EXPERTS = 1
SHARED_RANKS = 2
EXPERTS = 14
TOKENS = 8
HIDDEN = 7168
TOPK = 8
DTYPE = torch.bfloat16

# The attributes that dispatch and combine have in common.
ATTRIBUTES = {
    "ep_world_size": RANKS,
    "moe_expert_num": EXPERTS,
    "shared_expert_num": SHARED_EXPERTS,
    "shared_expert_rank_num": SHARED_RANKS,
    "expert_shard_type": 0,
    "global_bs": TOKENS * RANKS,
}


def factor(rank: int) -> float:
    """What the expert on a rank multiplies by; exact in bfloat16."""
    return 0.5 if rank < SHARED_RANKS else 1.0 + (rank - SHARED_RANKS) / 16


def tokens(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """X (BS, H), expert_ids (BS, K) and expert_scales (BS, K) of a rank, on the CPU."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(TOKENS, HIDDEN, generator=generator).to(DTYPE)
    ids = torch.rand(TOKENS, EXPERTS, generator=generator).argsort(dim=1)[:, :TOPK]
    return x, ids.int(), torch.rand(TOKENS, TOPK, generator=generator)


def expected(rank: int) -> torch.Tensor:
    """The result of the round trip: slots in ascending order, the shared expert last, fp32 sum."""
    x, ids, weights = tokens(rank)
    total = torch.zeros(TOKENS, HIDDEN)
    for slot in range(TOPK):
        factors = torch.tensor([factor(SHARED_RANKS + expert) for expert in ids[:, slot].tolist()])
        rows = (x.float() * factors[:, None]).to(DTYPE)
        total += rows.float() * weights[:, slot, None]
    total += (x.float() * factor(0)).to(DTYPE).float()
    return total.to(DTYPE)


def check(rank: int, output: torch.Tensor) -> None:
    """Wait for the device, then compare; nothing is known before that."""
    torch.npu.synchronize()
    if not torch.equal(output.cpu(), expected(rank)):
        raise AssertionError(f"rank {rank}: the combined tokens are wrong")
    line = (
        f"rank {rank}: {TOKENS} tokens through {TOPK} of {EXPERTS} experts and back, all bits right"
    )
    print(line + "\n", end="", flush=True)  # one write per line, from 16 processes


def join(rank: int, port: int, ranks: int = RANKS) -> str:
    """Open the device and the groups; returns the name of the EP group."""
    torch_npu.npu.set_device(rank)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("hccl", init_method=address, rank=rank, world_size=ranks)
    # A group of its own: the two operators must not share their HCCL buffer with collectives.
    group = dist.new_group(list(range(ranks)))
    return group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)


def leave() -> None:
    """No rank may end while another still waits for it."""
    dist.barrier()
    dist.destroy_process_group()


def launch(run_rank, ranks: int = RANKS) -> None:
    """Start one process per rank: ``run_rank(rank, port, install)``.

    Forked, because torch_npu is imported already and no device has been opened yet.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--install", action="store_true", help="let ascend_moe check every call")
    install = parser.parse_args().install
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(run_rank, args=(port, install), nprocs=ranks, start_method="fork")
