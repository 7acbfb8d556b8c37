"""ascend_moe on top of the real torch_npu: checks first, then the stock call; npu and CPU give the same bits."""

import ranks
import torch
import torch.distributed as dist
import torch_npu

import ascend_moe
from ascend_moe.contract.shapes import World, combine_spec, dispatch_specs
from ascend_moe.contract.signature import OPERATORS, schema

SIZE = 2
STOCK = {
    "dispatch": torch_npu.npu_moe_distribute_dispatch_v2,
    "combine": torch_npu.npu_moe_distribute_combine_v2,
}


def check_schemas() -> None:
    """Names, types, order and defaults are torch_npu's own."""
    for op in OPERATORS:
        theirs = str(getattr(torch.ops.npu, f"npu_moe_distribute_{op}_v2").default._schema)
        assert theirs == "npu::" + schema(op), (theirs, schema(op))


def check_meta_shapes() -> None:
    """What torch_npu's meta registration returns, for a grid of legal calls, is what contract.shapes says."""
    grid = [
        (ep, shared, local, bs, topk, quant, weights, tokens_type, rank)
        for ep in (8, 16)
        for shared in ((1, 0), (1, 2), (2, 4))
        for local in (1, 3)
        for bs, topk in ((1, 1), (7, 4))
        for quant in (0, 2)
        for weights in (False, True)
        for tokens_type in (0, 1)
        for rank in (0, ep - 1)
    ]
    for ep, (shared, shared_ranks), local, bs, topk, quant, weights, tokens_type, rank in grid:
        experts = local * (ep - shared_ranks)
        attributes = {
            "group_ep": "g",
            "ep_world_size": ep,
            "ep_rank_id": rank,
            "moe_expert_num": experts,
            "shared_expert_num": shared,
            "shared_expert_rank_num": shared_ranks,
            "global_bs": bs * ep,
        }
        x = torch.empty(bs, 1024, dtype=torch.bfloat16, device="meta")
        ids = torch.empty(bs, topk, dtype=torch.int32, device="meta")
        scales = torch.empty(bs, topk, device="meta")
        got = torch.ops.npu.npu_moe_distribute_dispatch_v2(
            x,
            ids,
            quant_mode=quant,
            expert_scales=scales if weights else None,
            expert_token_nums_type=tokens_type,
            **attributes,
        )
        expected = dispatch_specs(
            World.of_call(attributes),
            rank=rank,
            bs=bs,
            hidden=1024,
            topk=topk,
            x_dtype="bfloat16",
            quant_mode=quant,
            global_bs=bs * ep,
            tp_world_size=0,
            has_expert_scales=weights,
        )
        for tensor, spec, name in zip(got, expected, expected._fields, strict=True):
            assert (tuple(tensor.shape), str(tensor.dtype)) == (
                spec.shape,
                f"torch.{spec.dtype}",
            ), (
                name,
                attributes,
                tensor.shape,
                spec,
            )
        expand_x = torch.empty(got[0].shape, dtype=torch.bfloat16, device="meta")
        combined = torch.ops.npu.npu_moe_distribute_combine_v2(
            expand_x, ids, got[2], got[4], scales, **attributes
        )
        spec = combine_spec(bs=bs, hidden=1024, expand_x_dtype="bfloat16")
        assert tuple(combined.shape) == spec.shape


def check(rank: int) -> None:
    check_schemas()
    if rank == 0:
        check_meta_shapes()
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
    ranks.run(SIZE, check)
    print("drop-in right")
