"""The ranks of ``scripts/bench vnpu``: RANKS TOKENS HIDDEN PAIRS. The last line of rank 0 is JSON with the seconds."""

import json
import socket
import sys
import time

STARTED = time.time()

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch_npu

EXPERTS_PER_RANK = 2
TOPK = 8


def run_rank(rank: int, port: int, cpu, ranks: int, tokens: int, hidden: int, pairs: int) -> None:
    """Pairs of dispatch and combine; what an "expert" gives is what it got."""
    torch_npu.npu.set_device(rank)
    dist.init_process_group(
        "hccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks
    )
    group = dist.new_group(list(range(ranks)))
    name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
    experts = EXPERTS_PER_RANK * ranks
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(tokens, hidden, generator=generator).bfloat16()
    ids = torch.rand(tokens, experts, generator=generator).argsort(dim=1)[:, :TOPK].int()
    topk = ids.shape[1]
    scales = torch.full((tokens, topk), 1.0 / 8)
    common = {
        "group_ep": name,
        "ep_world_size": ranks,
        "ep_rank_id": rank,
        "moe_expert_num": experts,
        "global_bs": tokens * ranks,
    }
    here, ids_here, scales_here = x.npu(), ids.npu(), scales.npu()
    expected = torch.zeros(tokens, hidden)
    for slot in range(topk):
        expected += x.float() * scales[:, slot, None]
    expected = expected.bfloat16()

    def pair() -> torch.Tensor:
        rows, _, assist, _, counts, _, expand = torch_npu.npu_moe_distribute_dispatch_v2(
            x=here, expert_ids=ids_here, **common
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            expand_x=rows,
            expert_ids=ids_here,
            assist_info_for_combine=assist,
            ep_send_counts=counts,
            expert_scales=scales_here,
            expand_scales=expand,
            **common,
        )

    def right(output: torch.Tensor) -> None:
        torch.npu.synchronize()
        assert torch.equal(output.cpu(), expected), f"rank {rank}: the combined tokens are wrong"

    right(pair())
    dist.barrier()
    first, cpu[rank] = time.time(), -time.process_time()
    for _ in range(pairs):
        output = pair()
    right(output)
    last = time.time()
    cpu[rank] += time.process_time()
    dist.barrier()
    if rank == 0:
        seconds = {"start": first - STARTED, "pairs": last - first, "cpu": sum(cpu)}
        print(json.dumps(seconds), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    sizes = tuple(map(int, sys.argv[1:]))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cpu = mp.get_context("fork").Array("d", sizes[0])
    mp.start_processes(run_rank, args=(port, cpu, *sizes), nprocs=sizes[0], start_method="fork")
