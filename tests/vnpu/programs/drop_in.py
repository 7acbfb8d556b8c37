"""ascend_moe on top of the real torch_npu: checks first, then the stock call; npu and CPU give the same bits."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import ranks
import torch
import torch.distributed as dist
import torch_npu
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, hierarchy_plans, plans

import ascend_moe
from ascend_moe.contract.shapes import TensorSpec, combine_spec, dispatch_specs_of_call
from ascend_moe.contract.signature import CANN_8_2, OPERATORS, PARAMETERS, schema, with_defaults

SIZE = 2
STOCK = {
    "dispatch": torch_npu.npu_moe_distribute_dispatch_v2,
    "combine": torch_npu.npu_moe_distribute_combine_v2,
}


def check_schemas() -> None:
    """Names, types, order and defaults are torch_npu's own; older ones lack some of what came after CANN 8.2."""
    for op in OPERATORS:
        theirs = getattr(torch.ops.npu, f"npu_moe_distribute_{op}_v2").default._schema
        names = {argument.name for argument in theirs.arguments}
        assert all(p.name in names for p in PARAMETERS[op] if p.since == CANN_8_2), theirs
        assert str(theirs) == "npu::" + schema(op, names), (theirs, schema(op, names))


def draw() -> list[Plan]:
    """Random legal calls of every mode; the seed is fixed, so a failure comes again."""
    found: list[Plan] = []

    @seed(20261124)
    @settings(
        max_examples=60,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.one_of(
            plans(2), plans(5), plans(8), plans(4, tp=2), plans(16, tp=2), hierarchy_plans(16)
        )
    )
    def collect(plan: Plan) -> None:
        found.append(replace(plan, strided=False))  # meta tensors have no values to copy

    collect()
    return found


def check_meta_shapes(chosen: list[Plan]) -> None:
    """Shapes and dtypes of torch_npu's meta registration are what contract.shapes says."""
    for plan in chosen:
        calls = [call | {"group_ep": "ep"} for call in dispatch_calls(plan)]
        dispatched = []
        for call in calls:
            got = torch.ops.npu.npu_moe_distribute_dispatch_v2(**on_meta(call))
            expected = dispatch_specs_of_call(with_defaults("dispatch", call))
            for name, tensor, spec in zip(expected._fields, got, expected, strict=True):
                forgotten = 2 if forgets_tp(plan) and name == "ep_recv_counts" else 1
                check_spec(tensor, spec.shape[0] // forgotten, spec, (plan, name))
            dispatched.append(got)
        for call, homeward in zip(calls, combine_calls(plan, dispatched, calls), strict=True):
            combined = torch.ops.npu.npu_moe_distribute_combine_v2(**on_meta(homeward))
            bs = len(call["x"])
            spec = combine_spec(bs=bs, hidden=plan.hidden, expand_x_dtype=plan.dtype)
            check_spec(combined, bs, spec, plan)


def check_spec(tensor: torch.Tensor, length: int, spec: TensorSpec, what: object) -> None:
    found, wanted = (tuple(tensor.shape), str(tensor.dtype)), (length, *spec.shape[1:])
    assert found == (wanted, f"torch.{spec.dtype}"), (what, found, spec)


def forgets_tp(plan: Plan) -> bool:
    """Where the two differ: on fewer than 8 ranks, expert_scales leaves no room for the TP peer's counts."""
    return plan.tp == 2 and plan.expert_scales and plan.ep < 8


def on_meta(call: dict) -> dict:
    """The call as a graph compiler sees it."""
    return {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in ({"group_ep": "ep", "group_tp": "tp"} | call).items()
    }


def check(rank: int, chosen: list[Plan]) -> None:
    check_schemas()
    if rank == 0:
        check_meta_shapes(chosen)
    gloo = dist.new_group(list(range(SIZE)), backend="gloo")
    names = {"npu": ranks.GROUPS["ep"], "cpu": ascend_moe.hccl_comm_name(gloo, rank)}
    hccl = dist.new_group(list(range(SIZE)))
    assert ascend_moe.hccl_comm_name(hccl, rank) == hccl._get_backend(
        torch.device("npu")
    ).get_hccl_comm_name(rank)

    outputs = {device: round_trip(rank, device, names[device]) for device in names}
    for name, on_npu in outputs["npu"].items():
        assert torch.equal(on_npu.cpu(), outputs["cpu"][name]), name

    ascend_moe.install()
    assert torch_npu.npu_moe_distribute_dispatch_v2 is ascend_moe.npu_moe_distribute_dispatch_v2
    installed = round_trip(rank, "npu", names["npu"], torch_npu)
    for name, tensor in installed.items():
        assert torch.equal(tensor.cpu(), outputs["cpu"][name]), name
    x = torch.ones(4, 1024, dtype=torch.bfloat16).npu()
    many = torch.arange(17).expand(4, 17).int().contiguous().npu()
    try:
        torch_npu.npu_moe_distribute_dispatch_v2(x, many, names["npu"], SIZE, rank, 32)
    except ascend_moe.ConstraintError as error:
        assert "17" in str(error), error
        assert "16" in str(error), error
    else:
        raise AssertionError("K=17 was not refused")
    ascend_moe.uninstall()
    assert torch_npu.npu_moe_distribute_dispatch_v2 is STOCK["dispatch"]
    assert torch_npu.npu_moe_distribute_combine_v2 is STOCK["combine"]


def round_trip(rank: int, device: str, group: str, functions=ascend_moe) -> dict[str, torch.Tensor]:
    """Both calls on one device; only what is specified of their results."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(8, 1024, generator=generator).to(torch.bfloat16).to(device)
    ids = torch.rand(8, 6, generator=generator).argsort(dim=1)[:, :3].int().to(device)
    weights = torch.rand(8, 3, generator=generator).to(device)
    where = {"ep_world_size": SIZE, "ep_rank_id": rank, "moe_expert_num": 6, "group_ep": group}
    rows, scales, assist, tokens, counts, _, _ = functions.npu_moe_distribute_dispatch_v2(
        x, ids, quant_mode=2, **where
    )
    received = int(counts[5])
    expert_output = (rows.float() * scales[:, None]).to(torch.bfloat16)
    combined = functions.npu_moe_distribute_combine_v2(
        expert_output, ids, assist, counts, weights, **where
    )
    return {
        "rows": rows[:received],
        "scales": scales[:received],
        "assist": assist[: 3 * received],
        "tokens": tokens,
        "counts": counts,
        "combined": combined,
    }


if __name__ == "__main__":
    ranks.run(SIZE, check, draw())
    print("drop-in right")
