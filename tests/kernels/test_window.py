"""How much window our kernels need, over all legal shapes: what docs/buffer-size.md promises."""

import ctypes
from itertools import product

import pytest

from ascend_moe.contract.buffsize import MB, OWN, Traffic, Window
from ascend_moe.contract.limits import (
    FULLMESH,
    HIERARCHY,
    LIMITS,
    SHARED_EXPERTS_MAX,
    WINDOW_MB_DEFAULT,
)
from kernels.proof.arguments import Parameters
from kernels.proof.group import tp_window_bytes
from kernels.proof.prove import window_mb_worst_case
from kernels.proof.simulator import library

pytestmark = pytest.mark.usefixtures("proof_library")

CONTRACTS = ("cann-8.2", "cann-9.1")
COUNTS_BYTES = 64 << 10
"""Of the counts of one parity: docs/kernels.md, section 2."""


def most_local_experts(contract, ep, shared_ranks=0):
    """The largest legal number of experts of a MoE rank; 0 if there is none."""
    limits = LIMITS[contract, "A3"].paths[FULLMESH]
    return min(limits.moe_experts_max // (ep - shared_ranks), limits.local_times_ep_max // ep)


def groups(contract):
    """(ep, L, S) of every group size, with the most experts, one expert and shared experts."""
    limits = LIMITS[contract, "A3"].paths[FULLMESH]
    for ep in range(limits.ep_sizes.low, limits.ep_sizes.high + 1):
        for shared in {0, 1, min(SHARED_EXPERTS_MAX, ep - 1)}:
            most = most_local_experts(contract, ep, shared)
            yield from ((ep, local, shared) for local in {1, 2, most} if 0 < local <= most)


def shapes(contract):
    """Every group with the edges of BS, H and K."""
    limits = LIMITS[contract, "A3"].paths[FULLMESH]
    hidden = (
        limits.hidden_min,
        limits.hidden_min + 1,
        7168,
        limits.hidden_max - 1,
        limits.hidden_max,
    )
    for (ep, local, shared), bs, h, topk in product(
        groups(contract), (1, 9, limits.batch_max), hidden, (1, 8, limits.topk_max)
    ):
        experts = local * (ep - shared)
        if topk <= experts:
            yield Traffic(bs, h, topk, ep, experts, local, shared)


def window(contract, op, implementation):
    return Window("A3", contract, FULLMESH, op, implementation)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_default_serves_every_legal_call_and_stock_never_needs_less_than_ours(contract):
    """200 is 400 MB where HCCL hands out both buffers as one (CANN 9.x); 4 MB is the floor of the comparison."""
    pairs = [
        (window(contract, op, OWN).formula, window(contract, op, "stock").formula)
        for op in ("dispatch", "combine", "both")
    ]
    largest = number = 0
    for traffic in shapes(contract):
        for own, stock in pairs:
            needed = own(traffic).bytes
            assert needed <= max(stock(traffic).bytes, 4 * MB), traffic
            largest = max(largest, needed)
            number += 1
    assert number > 100_000
    assert 300 * MB < largest <= 2 * WINDOW_MB_DEFAULT * MB
    # The grid has the worst case of the proof's record.
    assert largest / MB <= window_mb_worst_case() < 2 * WINDOW_MB_DEFAULT


def test_where_one_buffer_of_200_mb_does_not_reach():
    """CANN 8.x: the examples of docs/buffer-size.md, and no shape with less than they have."""
    out_of_reach = [
        traffic
        for traffic in shapes("cann-9.1")
        if window("cann-9.1", "both", OWN).formula(traffic).bytes > WINDOW_MB_DEFAULT * MB
    ]
    assert out_of_reach
    assert all(
        (t.max_bs == 512 and t.hidden > 7168) or t.topk > 8 or t.shared_experts
        for t in out_of_reach
    )
    common = Traffic(512, 7168, 8, 0, 0, 0)
    for ep, local, shared in groups("cann-9.1"):
        if not shared:
            traffic = common._replace(ep=ep, moe_experts=local * ep, local_experts=local)
            assert window("cann-9.1", "both", OWN).formula(traffic).bytes <= WINDOW_MB_DEFAULT * MB
    largest = Traffic(0, 8192, 16, 16, 256, 16)
    assert window("cann-9.1", "combine", OWN).largest_max_bs(largest, WINDOW_MB_DEFAULT) == 399


def in_servers(local_experts, **more):
    """Groups in several servers, at the edges of BS, H and K."""
    for servers, bs, hidden, topk in product((2, 3, 8), (1, 9, 256), (32, 96, 7168), (1, 7, 16)):
        for local in local_experts:
            yield servers, Traffic(bs, hidden, topk, 0, 0, local, **more)


def kernels_need(kernels, per_server, servers, t, op):
    """The most of all modes, as the kernels' own header computes it."""
    lib, sizes = library(), {}
    for name in ("dispatch", "combine"):
        sizes[name] = 0
        for quant, smooth in ((0, 0), (1, 0), (1, 1)):
            given = Parameters(
                max_batch=t.max_bs,
                hidden=t.hidden,
                topk=t.topk,
                moe_experts=servers * per_server * t.local_experts,
                local_experts=t.local_experts,
                element=2 if t.packed and name == "dispatch" else 0,
                quant=quant and not t.packed,
                smooth=smooth,
                comm_quant=quant and kernels == "hierarchy",
            )
            size = getattr(lib, f"moe_{kernels}_{name}_bytes")
            sizes[name] = max(sizes[name], size(ctypes.byref(given), servers, per_server))
        if op not in (name, "both"):
            sizes[name] = 0
    return getattr(lib, f"moe_{kernels}_window_bytes")(sizes["dispatch"], sizes["combine"])


@pytest.mark.parametrize("op", ["dispatch", "combine", "both"])
@pytest.mark.parametrize(
    ("kernels", "product_name", "path", "packed"),
    [
        ("mesh", "A2", FULLMESH, False),
        ("mesh", "A2", FULLMESH, True),
        ("hierarchy", "A2", HIERARCHY, False),
        ("hierarchy", "A3", HIERARCHY, False),
    ],
)
def test_over_servers_the_formula_is_that_of_the_kernels(kernels, product_name, path, packed, op):
    per_server = 16 if product_name == "A3" else 8
    formula = Window(product_name, "cann-9.1", path, op, OWN).formula
    for servers, traffic in in_servers((1, 3, 8, 40), packed=packed):
        ep = servers * per_server
        given = traffic._replace(ep=ep, moe_experts=ep * traffic.local_experts)
        needed = kernels_need(kernels, per_server, servers, given, op)
        assert formula(given).bytes == needed, given


def test_the_tp_group_needs_less_than_a_megabyte():
    assert tp_window_bytes(8192, 48) < MB


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_counts_of_all_sources_fit_their_area(contract):
    fullest = 0
    for ep, local, _ in groups(contract):
        given = Parameters(local_experts=local)
        fullest = max(fullest, library().moe_counts_bytes(ctypes.byref(given), ep))
    assert COUNTS_BYTES // 3 < fullest <= COUNTS_BYTES
