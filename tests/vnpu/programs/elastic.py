"""Those that are left of a group call torch_npu itself with elastic_info: the oracle's bits, in every mode.

usage: elastic.py EXAMPLES

Two of five ranks, one of each kind, are left out by `ascend_moe.shrink`. The random calls are drawn once, before the
ranks are forked.
"""

import os
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

import ranks
import torch
import torch_npu
from elastic_calls import calls_of
from elastic_plans import DEAD, INFO, LEFT, LOCAL, RANKS, WHOLE, fitting, home, lifted
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_calls import Plan, dispatch_calls, plans

import ascend_moe
from ascend_moe.reference import combine_world, dispatch_world

EXAMPLES = int(sys.argv[1])


def draw() -> list[Plan]:
    found: list[Plan] = []

    @seed(20261130)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(plans(len(LEFT)))
    def collect(plan: Plan) -> None:
        found.append(fitting(plan))

    collect()
    return found


def check(rank: int, chosen: list[Plan]) -> None:
    whole = calls_of(RANKS, range(RANKS), attributes=WHOLE)
    torch_npu.npu_moe_distribute_dispatch_v2(**ranks.on_npu(whole[rank]))
    if rank in LEFT:
        info = ascend_moe.shrink(ranks.GROUPS["ep"], DEAD)
        assert info.cpu().equal(INFO)
        for plan in chosen:
            with mock.patch.dict(os.environ, plan.environment()):
                round_trip(plan, rank)
        call = ranks.on_npu(calls_of(RANKS, LEFT, attributes=WHOLE)[LEFT.index(rank)])
        # Without them torch_npu's eager expand_scales and its meta registration differ in shape.
        weights = torch.ones(call["expert_ids"].shape, device="npu")
        traced({**call, "expert_scales": weights})
        wrong(rank, call)
    torch.distributed.barrier()


def round_trip(plan: Plan, rank: int) -> None:
    own = LEFT.index(rank)
    calls = lifted(dispatch_calls(plan))
    wanted = dispatch_world(calls)
    output = [t.cpu() for t in torch_npu.npu_moe_distribute_dispatch_v2(**ranks.on_npu(calls[own]))]
    experts = 1 if own == 0 else LOCAL
    received = int(wanted[own].ep_recv_counts[len(LEFT) * experts - 1])
    heads = {
        "expand_x": received,
        "dynamic_scales": received if plan.quant_mode else 0,
        "assist_info_for_combine": 3 * received,
        "expert_token_nums": experts,
        "ep_recv_counts": len(LEFT) * experts,
    }
    for (name, length), got, want in zip(heads.items(), output, wanted[own], strict=False):
        assert got.dtype == want.dtype, f"{plan} rank {rank}: {name} {got.dtype}"
        assert got.shape == want.shape, f"{plan} rank {rank}: {name} {got.shape}"
        assert same(got[:length], want[:length]), f"{plan} rank {rank}: {name}"
    back = home(plan, wanted, calls)
    sums = torch_npu.npu_moe_distribute_combine_v2(**ranks.on_npu(back[own])).cpu()
    assert same(sums, combine_world(back)[own]), f"{plan} rank {rank}: combine"


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def traced(call: dict) -> None:
    """FakeTensor, opcheck and a graph of aot_eager agree with what runs."""
    required = ("x", "expert_ids", "group_ep", "ep_world_size", "ep_rank_id", "moe_expert_num")
    positional = tuple(call[name] for name in required)
    keywords = {name: value for name, value in call.items() if name not in required}
    torch.library.opcheck(
        torch.ops.npu.npu_moe_distribute_dispatch_v2.default,
        positional,
        keywords,
        test_utils=("test_schema", "test_faketensor"),
    )

    def dispatch(x: torch.Tensor, elastic_info: torch.Tensor) -> list[torch.Tensor]:
        more = {"x": x, "elastic_info": elastic_info}
        return ascend_moe.npu_moe_distribute_dispatch_v2(**{**call, **more})

    compiled = torch.compile(dispatch, fullgraph=True, backend="aot_eager")
    given = (call["x"], call["elastic_info"])
    eager = dispatch(*given)
    for one, other in zip(compiled(*given), eager, strict=True):
        assert one.shape == other.shape
    rows = int(eager[3].sum()) if LEFT.index(call["ep_rank_id"]) else int(eager[3][0])
    assert compiled(*given)[0][:rows].cpu().equal(eager[0][:rows].cpu())


def wrong(rank: int, call: dict) -> None:
    """Words that break a rule: named before the call where contents are read, behind it otherwise."""
    words = call["elastic_info"].clone()
    words[3] += 1
    broken = {**call, "elastic_info": words}
    with mock.patch.dict(os.environ, {"ASCEND_MOE_CHECK": "full"}):
        try:
            ascend_moe.npu_moe_distribute_dispatch_v2(**broken)
        except ascend_moe.ConstraintError as error:
            assert [violation.rule for violation in error.violations] == ["X-47"]
            print(f"rank {rank} before: {error.violations[0]}\n", end="", flush=True)
    try:
        torch_npu.npu_moe_distribute_dispatch_v2(**broken)
        torch.npu.synchronize()
    except RuntimeError as error:
        print(f"rank {rank} behind: {' '.join(str(error).split())}\n", end="", flush=True)


if __name__ == "__main__":
    chosen = draw()
    ranks.run(RANKS, check, chosen, timeout=400)
    print(f"{len(chosen)} random worlds equal on ranks {LEFT} of {RANKS}")
