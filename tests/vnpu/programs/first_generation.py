"""npu_moe_distribute_dispatch and npu_moe_distribute_combine against the second generation, on 4 ranks.

usage: first_generation.py A2|A3
"""

import sys

import ranks
import torch
import torch_npu

RANKS, TOKENS, HIDDEN, TOPK = 4, 5, 64, 3


def compare(rank: int, product: str) -> None:
    """Both generations with the same tokens: rows, counts and results must be the same, the handle not."""
    shared = 0 if product == "A2" else 1  # ranks
    experts = 2 * (RANKS - shared)
    common = {
        "group_ep": ranks.GROUPS["ep"],
        "ep_world_size": RANKS,
        "ep_rank_id": rank,
        "moe_expert_num": experts,
        "shared_expert_rank_num": shared,
        "global_bs": TOKENS * RANKS,
    }
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(TOKENS, HIDDEN, generator=generator).to(torch.bfloat16).npu()
    ids = torch.rand(TOKENS, experts, generator=generator).argsort(dim=1)[:, :TOPK].int().npu()
    weights = torch.rand(TOKENS, TOPK, generator=generator).npu()
    for quant_mode in (0, 2):
        call = {"x": x, "expert_ids": ids, "quant_mode": quant_mode, **common}
        first = torch_npu.npu_moe_distribute_dispatch(**call)
        second = torch_npu.npu_moe_distribute_dispatch_v2(**call)
        used = int(second[4][-1])
        for one, other in ((first[0], second[0]), (first[1], second[1])):
            assert torch.equal(one[:used].cpu(), other[:used].cpu())
        for one, other in ((first[3], second[3]), (first[4], second[4])):
            assert torch.equal(one.cpu(), other.cpu())
        if quant_mode == 2:
            continue
        # The ordinal of each (token, k) among those of this rank for its expert.
        seen = [0] * experts
        for number, expert in enumerate(ids.view(-1).tolist()):
            assert first[2][number] == seen[expert]
            seen[expert] += 1
        outputs = (first[0].float() * (rank + 1)).to(torch.bfloat16)
        call = {
            "expand_x": outputs,
            "expert_ids": ids,
            "ep_send_counts": first[4],
            "expert_scales": weights,
            **common,
        }
        home = torch_npu.npu_moe_distribute_combine(expand_idx=first[2], **call)
        expected = torch_npu.npu_moe_distribute_combine_v2(
            assist_info_for_combine=second[2], **call
        )
        assert torch.equal(home.cpu(), expected.cpu())
        assert home.cpu().abs().sum() > 0
    assert torch_npu._npu_distribute_barrier(x, ranks.GROUPS["ep"], RANKS) is x
    torch.npu.synchronize()
    try:
        torch_npu._npu_distribute_barrier(x, ranks.GROUPS["ep"], RANKS + 1)
        torch.npu.synchronize()
    except RuntimeError as error:
        assert "is a group of 4 ranks" in str(error), error
    else:
        raise AssertionError("a barrier of the wrong size passed")


if __name__ == "__main__":
    ranks.run(RANKS, compare, sys.argv[1])
    print(f"the first generation equals the second on {sys.argv[1]}")
