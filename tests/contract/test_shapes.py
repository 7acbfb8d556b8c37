"""Sizes against numbers that the vendor's own tests and documents state."""

from __future__ import annotations

from typing import Any

import pytest

from ascend_moe.contract.shapes import World, combine_spec, dispatch_specs


def _specs(
    *,
    ep: int,
    moe: int,
    shared: int = 1,
    shared_ranks: int = 0,
    rank: int = 0,
    bs: int = 32,
    topk: int = 8,
    **more: Any,
) -> Any:
    world = World.of(
        ep_world_size=ep,
        moe_expert_num=moe,
        shared_expert_num=shared,
        shared_expert_rank_num=shared_ranks,
    )
    given = {
        "quant_mode": 0,
        "global_bs": 0,
        "tp_world_size": 0,
        "has_expert_scales": False,
        "elastic": False,
        "x_dtype": "bfloat16",
    }
    return dispatch_specs(world, rank=rank, bs=bs, hidden=7168, topk=topk, **{**given, **more})


@pytest.mark.parametrize(
    ("call", "rows"),
    [
        ({"ep": 288, "moe": 256, "shared_ranks": 32}, 288),  # upstream InferShape tests
        ({"ep": 8, "moe": 4, "shared": 4, "shared_ranks": 4}, 256),
        ({"ep": 8, "moe": 64}, 2048),
        ({"ep": 5, "moe": 3, "shared_ranks": 2, "bs": 4}, 12),  # ceil(5 / 2) sources, not 5 / 2
        ({"ep": 5, "moe": 3, "shared_ranks": 2, "bs": 4, "rank": 2}, 20),
        ({"ep": 16, "moe": 16, "bs": 4, "global_bs": 16 * 9}, 144),  # uneven BS: the largest counts
        ({"ep": 2, "moe": 8, "bs": 3, "topk": 2}, 12),  # min(local experts, K)
        (
            {"ep": 16, "moe": 14, "shared_ranks": 2, "bs": 8, "rank": 1},
            64,
        ),  # the documents' example
        ({"ep": 16, "moe": 14, "shared_ranks": 2, "bs": 8, "rank": 15}, 128),
    ],
)
def test_rows(call: dict[str, Any], rows: int):
    specs = _specs(**call)
    assert specs.expand_x == ((rows, 7168), "bfloat16")
    assert specs.dynamic_scales == ((rows,), "float32")
    assert specs.assist_info_for_combine == ((rows * 128,), "int32")


def test_tp_doubles_rows_and_counts():
    specs = _specs(ep=4, moe=4, bs=3, topk=2, tp_world_size=2, quant_mode=2)
    assert specs.expand_x == ((24, 7168), "int8")
    assert specs.dynamic_scales.shape == (24,)
    assert specs.assist_info_for_combine.shape == (12 * 128,)
    assert specs.ep_recv_counts == ((8,), "int32")
    assert specs.tp_recv_counts == ((2,), "int32")
    assert specs.expert_token_nums == ((1,), "int64")


@pytest.mark.parametrize(("tp", "length"), [(0, 0), (1, 1), (2, 2)])
def test_tp_recv_counts(tp: int, length: int):
    assert _specs(ep=4, moe=4, tp_world_size=tp).tp_recv_counts.shape == (length,)


def test_expert_scales_lengthen_counts_and_fill_expand_scales():
    specs = _specs(ep=16, moe=64, bs=2, topk=4, has_expert_scales=True)
    assert specs.expand_scales.shape == (2 * 16 * 4,)
    assert specs.ep_recv_counts.shape == (64 + 32 * 2 * 4 * 2,)
    assert _specs(ep=16, moe=64, bs=2, topk=4).expand_scales.shape == (0,)
    assert _specs(ep=16, moe=64, bs=2, topk=4).ep_recv_counts.shape == (64,)


def test_a_shared_rank_has_one_expert():
    shared, moe = (_specs(ep=6, moe=8, shared=2, shared_ranks=2, rank=rank) for rank in (0, 2))
    assert shared.expert_token_nums.shape == (1,)
    assert shared.ep_recv_counts.shape == (6,)
    assert moe.expert_token_nums.shape == (2,)
    assert moe.ep_recv_counts.shape == (12,)


def test_the_default_means_no_shared_expert():
    given = {"ep_world_size": 4, "moe_expert_num": 4, "shared_expert_rank_num": 0}
    assert World.of(shared_expert_num=1, **given) == World.of(shared_expert_num=0, **given)


def test_combine():
    assert combine_spec(bs=3, hidden=1024, expand_x_dtype="float16") == ((3, 1024), "float16")
