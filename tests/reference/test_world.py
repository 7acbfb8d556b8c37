"""The oracle on its own: worked examples, invariants that need no second implementation, 768 ranks."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, plans

from ascend_moe import ConstraintError
from ascend_moe.reference import combine_world, dispatch_world
from ascend_moe.reference.routing import active_pairs


def _world(ids: list[list[list[int]]], **attributes: Any) -> list[dict[str, Any]]:
    """One call per entry of ``ids``; token t of rank r is filled with 10 * r + t + 1."""
    return [
        {
            "x": torch.tensor(
                [[10 * rank + token + 1.0] * 1024 for token in range(len(rows))]
            ).bfloat16(),
            "expert_ids": torch.tensor(rows, dtype=torch.int32),
            "ep_world_size": len(ids),
            "ep_rank_id": rank,
        }
        | attributes
        for rank, rows in enumerate(ids)
    ]


def _triples(output: Any, rows: int) -> list[list[int]]:
    return output.assist_info_for_combine[: 3 * rows].view(-1, 3).tolist()


@pytest.mark.parametrize("token_nums_type", [0, 1])
def test_two_ranks_by_hand(token_nums_type: int):
    """ep=2, four experts, K=2, BS=2; every output worked out on paper."""
    calls = _world(
        [[[0, 2], [2, 1]], [[3, 0], [0, 2]]],
        moe_expert_num=4,
        expert_token_nums_type=token_nums_type,
    )
    first, second = dispatch_world(calls)
    assert _triples(first, 4) == [[0, 0, 0], [1, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert _triples(second, 4) == [[0, 0, 1], [0, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert first.ep_recv_counts.tolist() == [1, 3, 4, 4]
    assert second.ep_recv_counts.tolist() == [2, 3, 3, 4]
    assert first.expert_token_nums.tolist() == ([3, 1] if token_nums_type else [3, 4])
    assert first.expand_x[:4, 0].tolist() == [1, 11, 12, 2]
    assert first.expand_x.shape == (8, 1024)
    on_a2, _ = dispatch_world(calls, product="A2", contract="cann-9.1")
    assert on_a2.assist_info_for_combine[:4].tolist() == [0, 0, 1, 0]


def test_shared_expert_replicas_by_hand():
    """ep=4, one shared expert on two ranks: rank 0 serves sources 0 and 2, rank 1 sources 1 and 3."""
    calls = _world([[[0], [1], [0]]] * 4, moe_expert_num=2, shared_expert_rank_num=2)
    outputs = dispatch_world(calls)
    assert outputs[0].ep_recv_counts.tolist() == [3, 3, 6, 6]
    assert outputs[1].ep_recv_counts.tolist() == [0, 3, 3, 6]
    assert len(outputs[0].expand_x) == 6
    assert _triples(outputs[1], 6) == [
        [1, 0, 1],
        [1, 1, 1],
        [1, 2, 1],
        [3, 0, 1],
        [3, 1, 1],
        [3, 2, 1],
    ]


def test_a_1d_mask_is_counted():
    calls = _world(
        [[[0], [1], [1]]] * 2, moe_expert_num=2, x_active_mask=torch.tensor([True, True, False])
    )
    first, second = dispatch_world(calls)
    assert _triples(first, 2) == [[0, 0, 0], [1, 0, 0]]
    assert _triples(second, 2) == [[0, 1, 0], [1, 1, 0]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_active_pair_arrives_exactly_once(data: st.DataObject):
    plan = data.draw(st.sampled_from([2, 3, 5, 8]).flatmap(plans))
    calls = dispatch_calls(plan)
    outputs = dispatch_world(calls, product=plan.product, contract=plan.contract)
    arrived = [
        output.ep_recv_counts[plan.ep * len(output.expert_token_nums) - 1] for output in outputs
    ]
    assert sum(map(int, arrived)) == sum(len(pairs) for pairs in _pairs(plan, calls))
    if plan.product == "A2":
        return
    found = [
        tuple(one)
        for output, n in zip(outputs, arrived, strict=True)
        for one in _triples(output, int(n))
    ]
    assert sorted(found) == sorted(
        (rank, *pair) for rank, pairs in enumerate(_pairs(plan, calls)) for pair in pairs
    )


def _pairs(plan: Plan, calls: list[dict[str, Any]]) -> list[list[tuple[int, int]]]:
    """(token, slot) that each rank must send, written down naively."""
    pairs = []
    for call in calls:
        active = active_pairs(call["expert_ids"], call["x_active_mask"]).tolist()
        ids = call["expert_ids"].tolist()
        sent = [
            (token, k)
            for token, row in enumerate(ids)
            for k, expert in enumerate(row)
            if active[token][k] and expert < plan.experts
        ]
        shared = [
            (token, plan.topk + s)
            for token in range(len(ids))
            for s in range(plan.shared_experts)
            if any(active[token])
        ]
        pairs.append(sent + shared)
    return pairs


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_identity_experts_return_the_weighted_sum(data: st.DataObject):
    """Summed here with numpy, one token at a time."""
    plan = data.draw(st.sampled_from([2, 4, 6]).flatmap(plans))
    plan = Plan(
        **{
            **vars(plan),
            "quant_mode": 0,
            "smooth": False,
            "comm_quant_mode": 0,
            "special": (0, 0, 0),
        }
    )
    if plan.topk > plan.experts:
        plan = Plan(**{**vars(plan), "topk": plan.experts})
    options = {"product": plan.product, "contract": plan.contract}
    calls = dispatch_calls(plan)
    outputs = dispatch_world(calls, **options)
    homeward = combine_calls(plan, outputs, calls)
    for call, output in zip(homeward, outputs, strict=True):
        call["expand_x"] = output.expand_x
    for call, back, combined in zip(
        calls, homeward, combine_world(homeward, **options), strict=True
    ):
        active = active_pairs(call["expert_ids"], call["x_active_mask"])
        for token in range(len(combined)):
            wanted = np.zeros(plan.hidden, np.float32)
            x = call["x"][token].float().numpy()
            for k in range(plan.topk):
                if active[token, k]:
                    wanted += x * np.float32(back["expert_scales"][token, k])
            if active[token].any():
                for _ in range(plan.shared_experts):
                    wanted += x
                if back["shared_expert_x"] is not None:
                    wanted += (
                        back["shared_expert_x"].reshape(-1, plan.hidden)[token].float().numpy()
                    )
            assert torch.equal(combined[token], torch.from_numpy(wanted).to(combined.dtype))


def test_special_experts_by_hand():
    """zero, copy and const experts have ids 2, 3 and 4; numbers from the formulas in plain Python."""
    calls = _world([[[2, 0], [3, 1], [4, 0]]] * 2, moe_expert_num=2)
    special = {"zero_expert_num": 1, "copy_expert_num": 1, "const_expert_num": 1}
    outputs = dispatch_world([call | special for call in calls])
    alpha_1, alpha_2, constant = (
        torch.full((1, 1024), value).bfloat16() for value in (0.0001, 0.0002, 3.0)
    )
    homeward = [
        {
            name: call[name]
            for name in ("expert_ids", "ep_world_size", "ep_rank_id", "moe_expert_num")
        }
        | special
        | {
            "expand_x": torch.zeros_like(output.expand_x),
            "assist_info_for_combine": output.assist_info_for_combine,
            "ep_send_counts": output.ep_recv_counts,
            "expert_scales": torch.tensor([[0.5, 0.5]] * 3),
            "ori_x": call["x"],
            "const_expert_alpha_1": alpha_1,
            "const_expert_alpha_2": alpha_2,
            "const_expert_v": constant,
        }
        for call, output in zip(calls, outputs, strict=True)
    ]
    for rank, combined in enumerate(combine_world(homeward)):
        x = [10 * rank + token + 1.0 for token in range(3)]
        scores = [float(alpha[0, 0]) * 1024 * x[2] for alpha in (alpha_1, alpha_2)]
        share = 1.0 / (1.0 + np.exp(scores[1] - scores[0]))
        blend = 0.5 * (share * x[2] + (1 - share) * 3.0)
        wanted = torch.tensor([0.0, 0.5 * x[1], blend], dtype=torch.float32)
        torch.testing.assert_close(combined[:, 0].float(), wanted, rtol=2**-8, atol=0)
        assert combined[1, 0] == 0.5 * x[1]


@pytest.mark.parametrize(
    ("changes", "contract", "param"),
    [
        ({"zero_expert_num": 1}, "cann-8.2", "zero_expert_num"),
        ({"comm_alg": "fullmesh_v2"}, "cann-8.2", "comm_alg"),
        ({"elastic_info": torch.zeros(8).int()}, "cann-8.2", "elastic_info"),
        ({"performance_info": torch.zeros(2).long()}, "cann-8.2", "performance_info"),
        ({"tp_world_size": 2}, "cann-9.1", "tp_world_size"),
        ({"y_dtype": 1}, "cann-9.1", "y_dtype"),
        ({"x_dtype": 1}, "cann-9.1", "x_dtype"),
        ({"scales_dtype": 1}, "cann-9.1", "scales_dtype"),
    ],
)
def test_what_a_contract_does_not_know_is_refused_by_name(
    changes: dict[str, Any], contract: str, param: str
):
    calls = [call | changes for call in _world([[[0], [1]]] * 2, moe_expert_num=2)]
    with pytest.raises(ConstraintError) as caught:
        dispatch_world(calls, contract=contract)
    assert param in [violation.param for violation in caught.value.violations]


def test_calls_that_do_not_make_a_world():
    calls = _world([[[0], [1]]] * 2, moe_expert_num=2)
    with pytest.raises(ValueError, match="one call per rank"):
        dispatch_world([])
    with pytest.raises(ValueError, match=r"ep_world_size \* tp = 2 \* 1 calls, got 1"):
        dispatch_world(calls[:1])
    with pytest.raises(ValueError, match="call 0 should be"):
        dispatch_world(calls[::-1])
    with pytest.raises(TypeError, match="topk"):
        dispatch_world([call | {"topk": 1} for call in calls])
    with pytest.raises(ConstraintError, match="X-40 error moe_expert_num: ranks disagree"):
        dispatch_world([calls[0], calls[1] | {"moe_expert_num": 4}])


def _homeward(calls: list[dict[str, Any]], outputs: list[Any], **more: Any) -> list[dict[str, Any]]:
    """Combine of what dispatch delivered, with weights 1."""
    shared = ("expert_ids", "ep_world_size", "ep_rank_id", "moe_expert_num", "x_active_mask")
    return [
        {name: call[name] for name in shared if name in call}
        | {
            "expand_x": output.expand_x,
            "assist_info_for_combine": output.assist_info_for_combine,
            "ep_send_counts": output.ep_recv_counts,
            "expert_scales": torch.ones(call["expert_ids"].shape),
        }
        | more
        for call, output in zip(calls, outputs, strict=True)
    ]


@pytest.mark.parametrize("bs", [1, 256])  # 256: outputs large enough for a mapping
def test_every_output_has_its_own_zero_memory(bs: int):
    """The outputs of a world may share a mapping, never a storage: ranks write into what they received."""
    calls = _world([[[0, 1]] * bs] * 4, moe_expert_num=4)
    outputs = dispatch_world(calls)
    tensors = [tensor for output in outputs for tensor in output if tensor.numel()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    assert all(
        tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        for tensor in tensors
    )
    before = [tensor.clone() for tensor in tensors]
    assert not outputs[3].expand_x.any()  # nobody chose its expert
    outputs[0].expand_x.fill_(7)
    assert all(tensor.equal(kept) for tensor, kept in zip(tensors[1:], before[1:], strict=True))


def test_what_takes_no_part_in_a_sum_leaves_no_trace():
    """An inactive pair whose weight is not a number, and an expert that returns infinity for it."""
    mask = torch.tensor([[True, False], [False, False]])
    calls = _world([[[0, 1], [1, 0]]] * 2, moe_expert_num=2, x_active_mask=mask)
    homeward = _homeward(calls, dispatch_world(calls))
    for call in homeward:
        call["expert_scales"] = torch.tensor([[0.5, torch.nan], [torch.inf, torch.nan]])
    for rank, combined in enumerate(combine_world(homeward)):
        assert combined[0].eq(0.5 * (10 * rank + 1)).all()
        assert combined[1].eq(0).all()


def test_sums_start_from_positive_zero():
    """-0.0 times a weight, added to +0.0, is +0.0; the sum must not start with its first addend."""
    calls = _world([[[0]], [[1]]], moe_expert_num=2)
    homeward = _homeward(calls, dispatch_world(calls))
    for call in homeward:
        call["expand_x"] = torch.full_like(call["expand_x"], -0.0)
    for combined in combine_world(homeward):
        assert not combined.signbit().any()


def packed_int4_calls() -> list[dict[str, Any]]:
    """A2, cann-9.1: int32 words that no arithmetic may touch, and a scale per token."""
    calls = _world([[[0, 2], [2, 1]], [[3, 0], [0, 2]]], moe_expert_num=4)
    for rank, call in enumerate(calls):
        call["x"] = torch.arange(64, dtype=torch.int32).reshape(2, 32) * 0x01010101 - 2**31 + rank
        call["scales"] = torch.tensor([0.5 + rank, 0.25 + rank])
    return calls


def test_packed_int4_rows_carry_the_scale_of_their_token():
    calls = packed_int4_calls()
    first, second = dispatch_world(calls, product="A2", contract="cann-9.1")
    assert first.expand_x.dtype == torch.int32
    sent = [(0, 0), (1, 0), (1, 1), (0, 1)]  # (source rank, token) of rank 0's rows, by hand
    for row, (source, token) in enumerate(sent):
        assert first.expand_x[row].equal(calls[source]["x"][token])
        assert first.dynamic_scales[row] == calls[source]["scales"][token]
    assert second.dynamic_scales[:4].tolist() == [0.5, 0.25, 1.25, 1.5]


@pytest.mark.parametrize("product", ["A2", "A3"])
def test_packed_int4_is_a2_and_cann_9_1_only(product: str):
    contract = "cann-8.2" if product == "A2" else "cann-9.1"
    with pytest.raises(ConstraintError, match="D-02"):
        dispatch_world(packed_int4_calls(), product=product, contract=contract)


def test_768_ranks():
    """ep 768, BS 4, H 1024, K 8, 768 experts: a tenth of a second without checks; the test allows ten."""
    ranks, bs, topk = 768, 4, 8
    generator = torch.Generator().manual_seed(0)
    calls = [
        {
            "x": torch.full((bs, 1024), rank, dtype=torch.float32).bfloat16(),
            "expert_ids": torch.randperm(ranks, generator=generator)[: bs * topk]
            .view(bs, topk)
            .int(),
            "ep_world_size": ranks,
            "ep_rank_id": rank,
            "moe_expert_num": ranks,
        }
        for rank in range(ranks)
    ]
    started = time.perf_counter()
    outputs = dispatch_world(calls)
    combined = combine_world(_homeward(calls, outputs))
    assert time.perf_counter() - started < 10
    ids = np.stack([call["expert_ids"].numpy() for call in calls])
    assert sum(int(output.expert_token_nums) for output in outputs) == ids.size
    for expert in (0, 1, 380, 767):
        wanted = np.argwhere(ids == expert).tolist()
        assert _triples(outputs[expert], len(wanted)) == wanted
        assert outputs[expert].expand_x[: len(wanted), 0].tolist() == [
            float(torch.tensor(float(source)).bfloat16()) for source, _, _ in wanted
        ]
    for call, sums in zip(calls, combined, strict=True):
        assert sums.equal(call["x"] * topk)  # eight times the same number: exact in bf16
