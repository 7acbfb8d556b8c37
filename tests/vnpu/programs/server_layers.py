"""Several servers by our kernels, as serving engines call them: layers in a row, graphs, and what ends in an error.

usage: server_layers.py PRODUCT ALGORITHM RANKS CASE...

PRODUCT is A2 or A3, ALGORITHM hierarchy or fullmesh. Every case has a group of its own.
"""

import os
import sys
from typing import Any
from unittest import mock

import ranks
import torch
import torch_npu

import ascend_moe
from ascend_moe.reference import combine_world, dispatch_world

PRODUCT, ALGORITHM, SIZE = sys.argv[1], sys.argv[2], int(sys.argv[3])
OTHER = {"hierarchy": "fullmesh", "fullmesh": "hierarchy"}[ALGORITHM]
HIDDEN, TOPK, EXPERTS, TOKENS = {"A2": 64, "A3": 1024}[PRODUCT], 4, 2 * SIZE, 3
CONTRACT = {"product": PRODUCT, "contract": "cann-9.1"}
BY_VARIABLES = {"HCCL_INTRA_PCIE_ENABLE": "1", "HCCL_INTRA_ROCE_ENABLE": "0"}
BY_KEYWORD = {"HCCL_INTRA_PCIE_ENABLE": "0", "HCCL_INTRA_ROCE_ENABLE": "1"}


def where(rank: int, group: str, comm_alg: str) -> dict[str, Any]:
    """What both calls say of the group."""
    return {
        "group_ep": group,
        "ep_world_size": SIZE,
        "ep_rank_id": rank,
        "moe_expert_num": EXPERTS,
        "comm_alg": comm_alg,
    }


def layer_calls(seed: int, quant_mode: int = 0) -> list[dict[str, Any]]:
    """The dispatch of one layer on every rank, with the mask that vLLM always passes.

    Full mesh looks at it: it leaves the last token out on some ranks.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        where(rank, "ep", ALGORITHM)
        | {
            "x": torch.randn(TOKENS, HIDDEN, generator=generator).bfloat16(),
            "expert_ids": torch.rand(TOKENS, EXPERTS, generator=generator)
            .argsort(dim=1)[:, :TOPK]
            .int(),
            "expert_scales": torch.randn(TOKENS, TOPK, generator=generator),
            "x_active_mask": torch.arange(TOKENS)
            < TOKENS - (ALGORITHM == "fullmesh" and rank % 5 == 2),
            "quant_mode": quant_mode,
        }
        for rank in range(SIZE)
    ]


def expert(rows: torch.Tensor, scales: torch.Tensor, quant_mode: int) -> torch.Tensor:
    """Doubles its rows."""
    wide = rows.float() * scales[:, None] if quant_mode else rows.float()
    return (wide * 2).bfloat16()


def wanted(calls: list[dict[str, Any]], comm_quant_mode: int) -> list[torch.Tensor]:
    """What the oracle says of a layer."""
    handles = dispatch_world(calls, **CONTRACT)
    back = [
        {
            name: call[name]
            for name in (*where(0, "", ""), "expert_ids", "expert_scales", "x_active_mask")
        }
        | {
            "expand_x": expert(handle.expand_x, handle.dynamic_scales, call["quant_mode"]),
            "assist_info_for_combine": handle.assist_info_for_combine,
            "ep_send_counts": handle.ep_recv_counts,
            "expand_scales": handle.expand_scales,
            "comm_quant_mode": comm_quant_mode,
        }
        for call, handle in zip(calls, handles, strict=True)
    ]
    return combine_world(back, **CONTRACT)


def on_npu(call: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.npu() for name, value in call.items() if isinstance(value, torch.Tensor)}


def layer(
    tensors: dict[str, torch.Tensor],
    group: dict[str, Any],
    quant_mode: int = 0,
    comm_quant_mode: int = 0,
    module: Any = torch_npu,
) -> torch.Tensor:
    sent = {
        name: tensor
        for name, tensor in tensors.items()
        if name != "expert_scales" or ALGORITHM == "hierarchy"
    }
    rows, scales, assist, _, counts, _, weights = module.npu_moe_distribute_dispatch_v2(
        **sent, **group, quant_mode=quant_mode
    )
    return module.npu_moe_distribute_combine_v2(
        expand_x=expert(rows, scales, quant_mode),
        expert_ids=tensors["expert_ids"],
        assist_info_for_combine=assist,
        ep_send_counts=counts,
        expert_scales=tensors["expert_scales"],
        expand_scales=weights,
        x_active_mask=tensors["x_active_mask"],
        comm_quant_mode=comm_quant_mode,
        **group,
    )


def layers(rank: int, group: str, comm_alg: str, module: Any, number: int = 10) -> None:
    """Enqueued without a wait between, in every mode."""
    got, right = [], []
    for seed in range(number):
        modes = {"quant_mode": 2 * (seed % 2)}
        modes["comm_quant_mode"] = 2 * (seed // 2 % 2) if ALGORITHM == "hierarchy" else 0
        calls = layer_calls(seed, modes["quant_mode"])
        right.append(wanted(calls, modes["comm_quant_mode"])[rank])
        tensors = on_npu(calls[rank])
        got.append(layer(tensors, where(rank, group, comm_alg), module=module, **modes))
    for seed, (mine, expected) in enumerate(zip(got, right, strict=True)):
        assert torch.equal(mine.cpu(), expected), f"layer {seed} on rank {rank}"


def by_keyword(rank: int, group: str) -> None:
    with mock.patch.dict(os.environ, BY_KEYWORD):
        layers(rank, group, ALGORITHM, torch_npu)


def by_default(rank: int, group: str) -> None:
    """Without a word about the algorithm: full mesh. Through ascend_moe, whose ranks agree in the store."""
    layers(rank, group, "", ascend_moe, 4)


def by_variables(rank: int, group: str) -> None:
    """Through ascend_moe, whose ranks agree in the store."""
    with mock.patch.dict(os.environ, BY_VARIABLES):
        layers(rank, group, "", ascend_moe, 3)


def graph(rank: int, group: str) -> None:
    """Replays read new data; an eager layer in between."""
    place = where(rank, group, ALGORITHM)
    calls = layer_calls(100)
    tensors = on_npu(calls[rank])
    assert torch.equal(layer(tensors, place).cpu(), wanted(calls, 0)[rank])
    captured = torch.npu.NPUGraph()
    with torch.npu.graph(captured):
        out = layer(tensors, place)
    for seed in range(101, 104):
        calls = layer_calls(seed)
        for name, tensor in tensors.items():
            tensor.copy_(calls[rank][name])
        captured.replay()
        torch.npu.synchronize()
        assert torch.equal(out.cpu(), wanted(calls, 0)[rank]), f"replay {seed} on rank {rank}"
        assert torch.equal(layer(tensors, place).cpu(), out.cpu())


def refused(rank: int, group: str) -> None:
    """What the kernels do not serve, by name and before anything is exchanged; the group goes on."""
    place = where(rank, group, ALGORITHM)
    call = on_npu(layer_calls(200)[rank])
    layer(call, place)
    batch, hidden = {"hierarchy": (512, 8192), "fullmesh": (256, 7168)}[ALGORITHM]
    large = {
        "x": torch.zeros(batch, hidden).bfloat16().npu(),
        "expert_ids": torch.zeros(batch, TOPK).int().npu(),
        "expert_scales": torch.zeros(batch, TOPK).npu(),
        "x_active_mask": torch.ones(batch).bool().npu(),
    }
    for name, given, changes in (
        ("other", call, {"comm_alg": OTHER}),
        ("const", call, {"const_expert_num": 1}),
        ("small", large, {}),
    ):
        told(name, rank, lambda given=given, changes=changes: dispatch(given, place | changes))
    layers(rank, group, ALGORITHM, torch_npu, 1)


def dispatch(tensors: dict[str, torch.Tensor], group: dict[str, Any]) -> None:
    torch_npu.npu_moe_distribute_dispatch_v2(**tensors, **group)
    torch.npu.synchronize()


def dead(rank: int, group: str) -> None:
    """The last rank dies, or a queue does (ASCEND_MOE_VNPU_DEAD_QUEUE)."""
    place = where(rank, group, ALGORITHM)
    tensors = on_npu(layer_calls(300)[rank])
    layer(tensors, place)
    torch.npu.synchronize()
    if "ASCEND_MOE_VNPU_DEAD_QUEUE" not in os.environ and rank == SIZE - 1:
        os._exit(0)

    def again() -> None:
        layer(tensors, place)
        torch.npu.synchronize()

    told("dead", rank, again)
    os._exit(0)


def told(case: str, rank: int, call: Any) -> None:
    try:
        call()
    except RuntimeError as error:
        text = " ".join(str(error).split())
        print(f"{case} rank {rank}: {text}\n", end="", flush=True)
    else:
        print(f"{case} rank {rank}: no error\n", end="", flush=True)


CASES = {
    function.__name__: function
    for function in (by_default, by_keyword, by_variables, graph, refused, dead)
}


def play(rank: int) -> None:
    for case in sys.argv[4:]:
        group = ranks._own_name([list(range(SIZE))], rank)
        CASES[case](rank, group)
        if rank == 0:
            print(f"{case} right", flush=True)


if __name__ == "__main__":
    ranks.run(SIZE, play)
    os._exit(0)
