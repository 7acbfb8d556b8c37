"""Random legal calls on npu tensors, compared with the oracle bit for bit.

usage: random_worlds.py RANKS TP EXAMPLES PRODUCT [hierarchy]

On A2 and in hierarchy our kernels (ASCEND_MOE_KERNELS=require) have a handle of their own, which only combine judges;
in hierarchy they follow the contract of 2026.

The plans are drawn once, before the ranks are forked; the seed is fixed, so a failure comes again.
"""

import os
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

import ranks
import torch
import torch_npu
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_calls import Plan, combine_calls, dispatch_calls, hierarchy_plans, plans

from ascend_moe.reference import combine_world, dispatch_world

OURS = os.environ.get("ASCEND_MOE_KERNELS") == "require"
SIZE, TP, EXAMPLES, PRODUCT = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PLANS = hierarchy_plans(SIZE) if sys.argv[5:] == ["hierarchy"] else plans(SIZE, tp=TP)


def draw() -> list[Plan]:
    found: list[Plan] = []

    @seed(20261123)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(PLANS.filter(lambda plan: plan.product == PRODUCT and served(plan)))
    def collect(plan: Plan) -> None:
        found.append(plan)

    collect()
    return found


def served(plan: Plan) -> bool:
    return not (OURS and plan.hierarchy and plan.contract == "cann-8.2")


def check(rank: int, chosen: list[Plan]) -> None:
    for plan in chosen:
        with mock.patch.dict(os.environ, plan.environment()):
            round_trip(plan, rank)


def round_trip(plan: Plan, rank: int) -> None:
    calls = dispatch_calls(plan)
    expected = dispatch_world(calls)
    output = [
        t.cpu() for t in torch_npu.npu_moe_distribute_dispatch_v2(**ranks.on_npu(calls[rank]))
    ]
    compare_dispatch(plan, rank, calls[rank], output, expected[rank])

    returned = combine_calls(plan, expected, calls)
    wanted = combine_world(returned)[rank]
    if plan.product == "A2" and OURS:
        returned[rank]["assist_info_for_combine"] = output[2]
    if plan.hierarchy and OURS:
        returned[rank] |= {"ep_send_counts": output[4], "expand_scales": output[6]}
    combined = torch_npu.npu_moe_distribute_combine_v2(**ranks.on_npu(returned[rank])).cpu()
    assert torch.equal(bits(combined), bits(wanted)), f"{plan} rank {rank}: combine"


def compare_dispatch(plan: Plan, rank: int, call: dict, output: list, expected) -> None:
    """Everything that is specified: rows behind the received ones are not."""
    experts = len(expected.expert_token_nums)
    own = int(expected.ep_recv_counts[plan.ep * experts - 1])
    received = own + (int(expected.tp_recv_counts[1 - call["tp_rank_id"]]) if plan.tp == 2 else 0)
    # With expert_scales torch_npu has no room for the TP peer's half.
    counts = plan.ep * experts * (1 if plan.expert_scales else plan.tp)
    stock_a2 = plan.product == "A2" and not OURS
    handle = call["expert_ids"].numel() if stock_a2 else 3 * own if plan.product == "A3" else 0
    if plan.hierarchy:  # there the handle lies behind the counts
        counts, handle = counts + 2 * own, 0
    heads = {
        "expand_x": received,
        "dynamic_scales": received if plan.quant_mode else 0,
        "assist_info_for_combine": handle,
        "expert_token_nums": experts,
        "ep_recv_counts": counts,
        "tp_recv_counts": 2 if plan.tp == 2 else 0,
        # In full mesh on A3 nobody promises them, and our kernels do not write them.
        "expand_scales": own
        if plan.expert_scales and (stock_a2 or (OURS and plan.hierarchy))
        else 0,
    }
    for (name, length), got, want in zip(heads.items(), output, expected, strict=True):
        assert got.dtype == want.dtype, f"{plan} rank {rank}: {name} {got.dtype}"
        assert torch.equal(bits(got[:length]), bits(want[:length])), f"{plan} rank {rank}: {name}"


def bits(tensor: torch.Tensor) -> torch.Tensor:
    kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(kind)


if __name__ == "__main__":
    chosen = draw()
    ranks.run(SIZE, check, chosen, tp=TP)
    print(f"{len(chosen)} random worlds equal on {SIZE} ranks ({PRODUCT}, tp {TP})")
