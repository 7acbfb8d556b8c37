"""Hierarchy in the oracle against a naive sum, token by token and element by element, and against paper.

The naive sum uses numpy's formats, libm's fused multiply-add and nothing of the package.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_calls import Plan, combine_calls, dispatch_calls, hierarchy_plans

from ascend_moe import ConstraintError
from ascend_moe.contract.servers import Servers, servers_of
from ascend_moe.reference import combine_world, dispatch_world
from ascend_moe.reference.quant import fused_multiply_add

RANKS_PER_SERVER = {"A2": 8, "A3": 16}

_libm = ctypes.CDLL("libm.so.6")
_libm.fmaf.argtypes = [ctypes.c_float] * 3
_libm.fmaf.restype = ctypes.c_float
fmaf = np.frompyfunc(lambda a, b, c: _libm.fmaf(a, b, c), 3, 1)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    """Plans set the variables that select hierarchy; nothing of them must stay."""
    for name in ("HCCL_INTRA_PCIE_ENABLE", "HCCL_INTRA_ROCE_ENABLE"):
        monkeypatch.setenv(name, "")


def bf16(values: np.ndarray) -> np.ndarray:
    """fp32 rounded to bf16, half to even, by the bits."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def fp16(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def over_the_link(partial: np.ndarray, total: np.ndarray, plan: Plan) -> np.ndarray:
    """What the owner has after the sum of one more server came."""
    if not plan.comm_quant_mode:
        rounded = bf16(partial) if plan.dtype == "bfloat16" else fp16(partial)
        return (total + rounded).astype(np.float32)
    total = total.copy()
    half = plan.dtype == "float16"
    if half:
        partial = fp16(partial)
    block = 16 if half else 8
    one_127th = np.float32(np.float16(1 / 127)) if half else np.float32(1 / 127)
    for at in range(0, len(partial), block):
        part = slice(at, at + block)
        scale = np.float32(np.abs(partial[part]).max() * one_127th)
        scale = fp16(scale) if half else scale
        with np.errstate(all="ignore"):
            quotient = fp16(partial[part] / scale)
        sent = np.clip(np.rint(np.nan_to_num(quotient, nan=0.0)), -128, 127)
        if half:  # exact in fp64, rounded once
            exact = sent.astype(np.float64) * scale + total[part]
            total[part] = exact.astype(np.float16).astype(np.float32)
        else:
            total[part] = fmaf(sent, bf16(scale), total[part]).astype(np.float32)
    return total


def naive(plan: Plan, call: dict[str, Any], expert_output: Any) -> np.ndarray:
    """The result of one rank. expert_output(token, k): the fp32 row of an expert."""
    ids, weights = call["expert_ids"].numpy(), call["given_weights"].numpy()
    mask = call["x_active_mask"]
    ignored = mask is None or plan.product == "A2"
    active = len(ids) if ignored else int(mask.sum())
    experts_per_server = RANKS_PER_SERVER[plan.product] * plan.local_experts
    result = np.zeros((len(ids), plan.hidden), np.float32)
    for token in range(active):
        order = list(range(plan.topk))
        if plan.product == "A2" and plan.contract == "cann-9.1":
            order.sort(key=lambda k, token=token: ids[token, k])
        total = np.zeros(plan.hidden, np.float32)
        for server in range(plan.ep // RANKS_PER_SERVER[plan.product]):
            mine = [k for k in order if ids[token, k] // experts_per_server == server]
            if not mine:
                continue
            partial = expert_output(token, mine[0]) * weights[token, mine[0]]
            for k in mine[1:]:
                row = expert_output(token, k)
                partial = fmaf(row, weights[token, k], partial).astype(np.float32)
            total = over_the_link(partial, total, plan)
        result[token] = bf16(total) if plan.dtype == "bfloat16" else fp16(total)
    return result


@pytest.mark.parametrize("comm_quant_mode", [0, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("product", "contract", "ep"),
    [("A2", "cann-8.2", 16), ("A2", "cann-9.1", 32), ("A3", "cann-9.1", 32)],
)
def test_every_rounding(product: str, contract: str, ep: int, dtype: str, comm_quant_mode: int):
    """Several servers per token and several experts per server, so that no rounding is idle."""
    is_naive_sum(
        Plan(
            product=product,
            contract=contract,
            ep=ep,
            local_experts=1,
            batch_sizes=(2,) * ep,
            hidden=1024 if product == "A3" else 96,
            topk=6,
            dtype=dtype,
            comm_quant_mode=comm_quant_mode,
            seed=5,
            hierarchy=True,
        )
    )


@settings(max_examples=20, deadline=None)
@given(plan=hierarchy_plans(16) | hierarchy_plans(32))
def test_oracle_is_the_naive_sum(plan: Plan):
    is_naive_sum(plan)


def is_naive_sum(plan: Plan) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in plan.environment().items():
            patch.setenv(name, value)
        calls = dispatch_calls(plan)
        outputs = dispatch_world(calls)
        homeward = combine_calls(plan, outputs, calls)
        combined = combine_world(homeward)
    rows_of = [rows_by_slot(plan, output) for output in outputs]
    for rank, (call, back) in enumerate(zip(calls, homeward, strict=True)):

        def expert_output(token: int, k: int, call: Any = call, rank: int = rank) -> np.ndarray:
            """Row of the expert by the row order of full mesh: (local expert, source rank, token)."""
            owner, local = divmod(int(call["expert_ids"][token, k]), plan.local_experts)
            before = sum(
                int(expert) == int(call["expert_ids"][token, k])
                for expert in call["expert_ids"][:token].reshape(-1)
            )
            row = rows_of[owner][local * plan.ep + rank] + before
            assert outputs[owner].expand_scales[row] == call["expert_scales"][token, k]
            return homeward[owner]["expand_x"][row].float().numpy()

        wanted = naive(plan, back | {"given_weights": call["expert_scales"]}, expert_output)
        assert np.array_equal(combined[rank].float().numpy(), wanted), f"rank {rank}"
        assert combined[rank].dtype == getattr(torch, plan.dtype)


def rows_by_slot(plan: Plan, output: Any) -> list[int]:
    """First row of each (local expert, source rank)."""
    ends = output.ep_recv_counts[: plan.ep * plan.local_experts].tolist()
    return [0, *ends[:-1]]


def world(**attributes: Any) -> list[dict[str, Any]]:
    """16 ranks on A2, one token each, 16 experts; every token chooses experts 8, 1 and 0, in this order."""
    return [
        {
            "x": torch.full((1, 32), rank + 1.0).bfloat16(),
            "expert_ids": torch.tensor([[8, 1, 0]], dtype=torch.int32),
            "expert_scales": torch.tensor([[0.25, 0.5, 0.125]]),
            "ep_world_size": 16,
            "ep_rank_id": rank,
            "moe_expert_num": 16,
            "comm_alg": "hierarchy",
        }
        | attributes
        for rank in range(16)
    ]


def home(calls: list[dict[str, Any]], outputs: list[Any], **changes: Any) -> list[dict[str, Any]]:
    names = ("expert_ids", "ep_world_size", "ep_rank_id", "moe_expert_num", "comm_alg")
    return [
        {name: call[name] for name in names}
        | {
            "expand_x": output.expand_x,
            "assist_info_for_combine": output.assist_info_for_combine,
            "ep_send_counts": output.ep_recv_counts,
            "expand_scales": output.expand_scales,
            "expert_scales": torch.full_like(call["expert_scales"], torch.nan),
        }
        | changes
        for call, output in zip(calls, outputs, strict=True)
    ]


@pytest.mark.parametrize("mask", [[False], [[False, True, False]]], ids=["1-D", "2-D"])
def test_a2_ignores_the_mask(mask: list[Any]):
    """Every token is sent and summed, whatever the mask says."""
    calls = world(x_active_mask=torch.tensor(mask))
    outputs = dispatch_world(calls, product="A2")
    assert outputs[0].expert_token_nums.tolist() == [16]
    back = home(calls, outputs, x_active_mask=torch.tensor(mask))
    for rank, result in enumerate(combine_world(back, product="A2")):
        assert result.tolist() == [[(rank + 1) * 0.875] * 32]


def test_by_hand():
    """Counts and weights on paper; combine must not read expert_scales, assist_info or the values of expert_ids."""
    calls = world()
    outputs = dispatch_world(calls, product="A2")
    assert outputs[0].expert_token_nums.tolist() == [16]
    assert outputs[2].expert_token_nums.tolist() == [0]
    assert outputs[1].ep_recv_counts[:16].tolist() == list(range(1, 17))
    assert len(outputs[0].ep_recv_counts) == 16 + 2 * 16 * 3 * (16 // 8)
    assert not any(output.assist_info_for_combine.any() for output in outputs)
    assert [float(outputs[rank].expand_scales[5]) for rank in (0, 1, 8)] == [0.125, 0.5, 0.25]
    assert outputs[8].expand_x[:16, 0].tolist() == [rank + 1.0 for rank in range(16)]
    back = home(calls, outputs, expert_ids=torch.tensor([[1, 2, 3]], dtype=torch.int32))
    for call in back:
        call["assist_info_for_combine"].fill_(-1)
    for rank, result in enumerate(combine_world(back, product="A2")):
        assert result.tolist() == [[(rank + 1) * 0.875] * 32]


@pytest.mark.parametrize(("contract", "result"), [("cann-8.2", 1.0), ("cann-9.1", 1 + 2**-10)])
def test_order_inside_a_server(monkeypatch: pytest.MonkeyPatch, contract: str, result: float):
    """Rows of 1 from experts 7, 4 and 1, in this order of k, weigh 1 + 2**-11, 2**-24 and 2**-24.

    By k each small one vanishes against the large one, which then is a tie of fp16 and rounds down; by expert id the
    small ones come first, add up to one last bit of fp32, and break the tie.
    """
    monkeypatch.setenv("HCCL_INTRA_PCIE_ENABLE", "1")
    monkeypatch.setenv("HCCL_INTRA_ROCE_ENABLE", "0")
    calls = world(
        expert_ids=torch.tensor([[7, 4, 1]], dtype=torch.int32),
        expert_scales=torch.tensor([[1 + 2**-11, 2**-24, 2**-24]]),
        comm_alg="",
        x=torch.ones(1, 32).half(),
    )
    outputs = dispatch_world(calls, product="A2", contract=contract)
    for combined in combine_world(home(calls, outputs), product="A2", contract="cann-8.2"):
        assert combined.tolist() == [[result] * 32]


def test_smooth_scales_are_refused():
    for product in ("A2", "A3"):
        calls = world(quant_mode=2, scales=torch.ones(16, 1024), x=torch.ones(1, 1024).half())
        with pytest.raises(ConstraintError) as caught:
            dispatch_world(calls, product=product, contract="cann-9.1")
        assert [violation.rule for violation in caught.value.violations] == ["D-08"]


def test_a_foreign_handle_is_named():
    calls = world()
    outputs = dispatch_world(calls, product="A2")
    for word, value, param, text in (
        (0, -1, "ep_send_counts", "falls at entry 0"),
        (15, 999, "ep_send_counts", "says 999 rows were received"),
        (16, 7, "ep_send_counts", "row 0 has token 7"),
        (17, 3, "ep_send_counts", "row 0 has place 3"),
        (17, 1, "assist_info_for_combine", "two rows claim token 0, k 1 of rank 0"),
    ):
        back = home(calls, outputs)
        back[0]["ep_send_counts"] = back[0]["ep_send_counts"].clone()
        back[0]["ep_send_counts"][word] = value
        with pytest.raises(ConstraintError) as caught:
            combine_world(back, product="A2")
        (violation,) = caught.value.violations
        assert (violation.rule, violation.param) == ("E-08", param)
        assert text in violation.message
    back = home(calls, outputs)
    back[0]["expand_scales"] = back[0]["expand_scales"][:3]
    with pytest.raises(ConstraintError, match="expand_scales"):
        combine_world(back, product="A2")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3), min_size=1
    )
)
def test_fused_multiply_add_is_libm(triples: list[tuple[float, float, float]]):
    a, b, c = torch.tensor(triples, dtype=torch.float32).unbind(1)
    with np.errstate(over="ignore"):
        wanted = fmaf(a.numpy(), b.numpy(), c.numpy()).astype(np.float32)
    assert np.array_equal(fused_multiply_add(a, b, c).numpy(), wanted, equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_fused_multiply_add_near_ties(seed: int):
    """Sums that lie next to the middle of two fp32 numbers, where rounding twice goes wrong."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(512, generator=generator) for _ in range(2))
    exponent = torch.randint(-30, 30, (512,), generator=generator)
    c = torch.ldexp(torch.randn(512, generator=generator), exponent)
    wanted = fmaf(a.numpy(), b.numpy(), c.numpy()).astype(np.float32)
    assert np.array_equal(fused_multiply_add(a, b, c).numpy(), wanted)
    integers = torch.randint(-128, 128, (512,), generator=generator).half()
    scale, total = b.half(), c.clamp(-60000, 60000).half()
    exact = integers.double().numpy() * scale.double().numpy() + total.double().numpy()
    ours = fused_multiply_add(integers, scale, total)
    assert np.array_equal(ours.numpy(), exact.astype(np.float16))


def test_product_sizes():
    found = {
        (product, contract): servers_of("hierarchy", product=product, contract=contract)
        for product, contract in (("A2", "cann-8.2"), ("A2", "cann-9.1"), ("A3", "cann-9.1"))
    }
    assert found == {
        ("A2", "cann-8.2"): Servers(8, False, ignores_mask=True),
        ("A2", "cann-9.1"): Servers(8, True, ignores_mask=True),
        ("A3", "cann-9.1"): Servers(16, False, ignores_mask=False),
    }
    assert servers_of("fullmesh", product="A2", contract="cann-9.1") is None
