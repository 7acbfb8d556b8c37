"""Buffer sizes against numbers that were worked out by hand from the public formulas."""

import random
import subprocess
from pathlib import Path

import pytest

from ascend_moe import ConstraintError, required_hccl_buffsize
from ascend_moe.contract.buffsize import (
    MB,
    Traffic,
    Window,
    hierarchy_a2,
    hierarchy_a2_first,
    hierarchy_a3,
    mesh_a2,
    mesh_a3,
    mesh_v2_a3,
    own_mesh,
    tp_window,
)


def traffic(bs, hidden, topk, ep, moe, sn=0, sr=0, packed=False):
    return Traffic(bs, hidden, topk, ep, moe, moe // (ep - sr), sn if sr else 0, packed)


def ceil_mb(total):
    return -(-total.bytes // MB)


# (BS, H, K, ep, moe, SN, SR) -> MB: literal reading of the documents, tiling, fullmesh_v2
A3_MESH = [
    ((8, 7168, 8, 16, 14, 1, 2), 6, 6, 6),
    ((32, 7168, 8, 288, 256, 1, 32), 269, 269, 278),
    ((64, 7168, 8, 16, 256, 1, 0), 480, 478, 494),
    ((64, 7168, 8, 16, 256, 0, 0), 478, 478, 494),
    ((256, 7168, 8, 16, 128, 1, 0), 991, 984, 1016),
    ((512, 7168, 8, 64, 256, 1, 0), 3838, 3824, 3952),
    ((512, 8192, 16, 768, 768, 1, 0), 12944, 12928, 13696),
    ((128, 2048, 6, 8, 64, 1, 0), 79, 78, 78),
    ((16, 7168, 8, 64, 256, 2, 32), 237, 237, 245),
    ((96, 5120, 8, 32, 160, 1, 0), 332, 330, 345),
    ((1, 1024, 1, 2, 2, 1, 0), 1, 1, 1),
]


@pytest.mark.parametrize(("sizes", "literal", "tiling", "v2"), A3_MESH, ids=str)
def test_a3_mesh(sizes, literal, tiling, v2):
    effective = traffic(*sizes)
    assert ceil_mb(mesh_a3(effective)) == tiling
    assert ceil_mb(mesh_a3(effective._replace(shared_experts=sizes[5]))) == literal
    assert ceil_mb(mesh_v2_a3(effective)) == v2


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((8, 7168, 8, 16, 14, 1, 2), 5865472),
        ((64, 7168, 8, 16, 256, 1, 0), 501219328),
    ],
)
def test_a3_mesh_to_the_byte(sizes, expected):
    assert mesh_a3(traffic(*sizes)).bytes == expected


def test_literal_reading_to_the_byte():
    literal = traffic(64, 7168, 8, 16, 256)._replace(shared_experts=1)
    assert mesh_a3(literal).bytes == 503054336


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((16, 7168, 8, 256), 460.875),
        ((256, 7168, 8, 512), 2224),
        ((64, 4096, 6, 128), 469.5),
        ((128, 7168, 16, 256), 862),
    ],
)
def test_a3_hierarchy(sizes, expected):
    bs, hidden, topk, moe = sizes
    assert hierarchy_a3(traffic(bs, hidden, topk, 16, moe)).bytes == expected * MB


# (BS, H, K, ep, moe) -> MB: full mesh, int32 x, hierarchy of cann-8.2, of cann-9.1
A2 = [
    ((16, 7168, 8, 16, 256), 60, 117, 161, 66),
    ((64, 7168, 8, 32, 256), 452, 901, 330, 242),
    ((256, 7168, 8, 64, 256), 1796, 3592, 1008, 969),
    ((128, 4096, 6, 8, 64), 100, 197, None, None),
    ((256, 5120, 8, 16, 384), 644, 1286, None, None),
    ((256, 7168, 8, 64, 512), None, None, 1912, 1873),
    ((512, 7168, 8, 64, 512), None, None, 3720, 3737),
    ((1, 32, 1, 16, 16), 5, 5, None, None),
]


@pytest.mark.parametrize(("sizes", "mesh", "packed", "first", "later"), A2, ids=str)
def test_a2(sizes, mesh, packed, first, later):
    if mesh is not None:
        assert ceil_mb(mesh_a2(traffic(*sizes))) == mesh
        assert ceil_mb(mesh_a2(traffic(*sizes, packed=True))) == packed
    if first is not None:
        assert ceil_mb(hierarchy_a2_first(traffic(*sizes))) == first
        assert ceil_mb(hierarchy_a2(traffic(*sizes))) == later


@pytest.mark.parametrize(("rows", "expected"), [(256, 14.25), (8192, 456)])
def test_tp_window(rows, expected):
    assert tp_window(rows, 7168).bytes == expected * MB


def test_header_of_44_or_64_bytes_is_the_same_slot():
    for hidden in range(1, 20000):
        payload = -(-2 * hidden // 32) * 32
        assert -(-(payload + 44) // 512) == -(-(payload + 64) // 512), hidden


def deployment(**changes):
    sizes = {
        "product": "A3",
        "max_bs": 64,
        "hidden": 7168,
        "topk": 8,
        "ep_world_size": 16,
        "moe_expert_num": 256,
    }
    return required_hccl_buffsize(**{**sizes, **changes})


def test_public_function():
    need = deployment()
    assert (need.bytes, need.mb, need.algorithm) == (501219328, 478, "fullmesh")
    assert need.literal_mb == 480
    assert need.stock_log_mb == 479
    assert need.memory_mb == 956
    assert need.formula == ("2 * (16 * 64 * 16 * 14848 + (8 + 0) * 64 * 14336) = 501219328 bytes")


@pytest.mark.parametrize(("comm_alg", "op", "mb"), [("fullmesh_v2", "dispatch", 494)])
def test_fullmesh_v2_is_larger_for_dispatch_and_plain_for_combine(comm_alg, op, mb):
    assert deployment(comm_alg=comm_alg, op=op).mb == mb
    assert deployment(comm_alg=comm_alg, op="both").mb == mb
    assert deployment(comm_alg=comm_alg, op="combine").mb == 478


def test_contract_decides_a2_hierarchy():
    sizes = {"product": "A2", "ep_world_size": 32, "comm_alg": "hierarchy"}
    assert deployment(**sizes, contract="cann-8.2").mb == 330
    assert deployment(**sizes, contract="cann-9.1").mb == 242
    assert deployment(**sizes).mb == 242, "comm_alg is known from cann-9.1 on"


def test_variables_select_a2_hierarchy(monkeypatch):
    sizes = {"product": "A2", "ep_world_size": 32}
    assert deployment(**sizes).algorithm == "fullmesh"
    monkeypatch.setenv("HCCL_INTRA_PCIE_ENABLE", "1")
    assert deployment(**sizes).algorithm == "fullmesh", "both must be set"
    monkeypatch.setenv("HCCL_INTRA_ROCE_ENABLE", "0")
    assert deployment(**sizes).algorithm == "hierarchy"
    assert deployment().algorithm == "fullmesh", "A3 ignores them"
    monkeypatch.setenv("HCCL_INTRA_PCIE_ENABLE", "01")
    assert deployment(**sizes).algorithm == "fullmesh", "compared as strings"


def test_one_server_has_no_hierarchy(monkeypatch):
    sizes = {"product": "A2", "ep_world_size": 8, "comm_alg": "hierarchy"}
    assert deployment(**sizes).algorithm == "fullmesh"


def test_documented_minimum_of_a3():
    assert deployment(max_bs=1, hidden=1024, topk=1, ep_world_size=2, moe_expert_num=2).mb == 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"moe_expert_num": 250}, "X-10"),
        ({"shared_expert_num": 2}, "X-19"),
        ({"shared_expert_num": 2, "shared_expert_rank_num": 3, "moe_expert_num": 26}, "X-20"),
        ({"shared_expert_rank_num": 16}, "X-18"),
        ({"comm_alg": "ring"}, "X-29"),
        ({"comm_alg": "hierarchy", "contract": "cann-8.2"}, "X-29"),
        ({"product": "A2", "shared_expert_rank_num": 2}, "X-21"),
    ],
)
def test_what_has_no_size_is_refused_by_rule(changes, rule):
    with pytest.raises(ConstraintError) as caught:
        deployment(**changes)
    assert [violation.rule for violation in caught.value.violations] == [rule]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_bs": 0}, "max_bs is 0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"product": "A5"}, "product is 'A5'"),
        ({"op": "gather"}, "op is 'gather'"),
        ({"implementation": "x"}, "implementation is 'x'"),
        ({"contract": "cann-7"}, "contract is 'cann-7'"),
    ],
)
def test_unknown_names_and_numbers(changes, words):
    with pytest.raises(ValueError, match=words):
        deployment(**changes)


@pytest.mark.parametrize("path", ["fullmesh", "fullmesh_v2", "hierarchy"])
@pytest.mark.parametrize("available", [200, 477, 478, 1000])
def test_largest_max_bs_is_the_largest(path, available):
    window = Window("A3", "cann-9.1", path, "dispatch")
    sizes = traffic(1, 7168, 8, 16, 256)
    best = window.largest_max_bs(sizes, available)
    brute = [
        bs
        for bs in range(1, {"fullmesh": 512}.get(path, 256) + 1)
        if window.formula(sizes._replace(max_bs=bs)).bytes <= available * MB
    ]
    assert best == max(brute, default=0)


ABI_PROBE = """
#include <cstdint>
#include <cstdio>
#include "abi.h"
using namespace ascend_moe;
int main() {
    unsigned bs, hidden, topk, ep, local, shared, dispatch, combine;
    while (scanf("%u %u %u %u %u %u %u %u", &bs, &hidden, &topk, &ep, &local, &shared, &dispatch,
                 &combine) == 8) {
        uint64_t sent = 0, returned = 0;
        for (unsigned mode = 0; mode < 3; ++mode) {  // plain, int8, int8 with smooth scales
            Parameters p{};
            p.max_batch = bs;
            p.hidden = hidden;
            p.topk = topk;
            p.local_experts = local;
            p.shared_experts = shared;
            p.quant = mode > 0;
            p.smooth = mode > 1;
            uint64_t bytes = DispatchBytes(p, ep);
            if (dispatch && bytes > sent) sent = bytes;
            for (p.comm_quant = 0; p.comm_quant < 2; ++p.comm_quant)
                if (combine && CombineBytes(p) > returned) returned = CombineBytes(p);
        }
        printf("%llu\\n", static_cast<unsigned long long>(WindowBytes(sent, returned)));
    }
}
"""


def test_our_own_window_is_what_the_kernels_compute(tmp_path, compiler):
    """Against kernels/device/abi.h itself, over all quantisation modes."""
    device = Path(__file__).resolve().parents[2] / "kernels/device"
    (tmp_path / "probe.cpp").write_text(ABI_PROBE)
    probe = tmp_path / "probe"
    subprocess.run(
        [compiler, "-std=c++17", f"-I{device}", str(tmp_path / "probe.cpp"), "-o", str(probe)],
        check=True,
        timeout=120,
    )
    draw = random.Random(7)
    ops = {"dispatch": (1, 0), "combine": (0, 1), "both": (1, 1)}
    cases, expected = [], []
    for _ in range(2000):
        ep = draw.choice([2, 3, 16, 64, 768])
        local, shared = draw.randint(1, 32), draw.randint(0, 4)
        sent = Traffic(
            draw.randint(1, 512),
            draw.randint(1024, 8192),
            draw.randint(1, 16),
            ep,
            local * ep,
            local,
            shared,
        )
        op = draw.choice(list(ops))
        numbers = (sent.max_bs, sent.hidden, sent.topk, ep, local, shared, *ops[op])
        cases.append(" ".join(map(str, numbers)))
        expected.append(own_mesh(sent, op).bytes)
    result = subprocess.run(
        [str(probe)],
        input="\n".join(cases),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [int(line) for line in result.stdout.split()] == expected


def test_our_own_window_is_small_in_one_server():
    own = deployment(implementation="ascend_moe")
    assert own.mb < deployment().mb / 10
    assert deployment(implementation="ascend_moe", comm_alg="fullmesh_v2").mb == own.mb
    one_server = {"product": "A2", "ep_world_size": 8, "contract": "cann-9.1"}
    size = deployment(implementation="ascend_moe", **one_server).mb
    assert size < deployment(**one_server).mb


@pytest.mark.parametrize(
    ("changes", "own", "stock"),
    [
        ({"product": "A2"}, 225, 228),
        ({"product": "A2", "max_bs": 256}, 897, 900),
        ({"product": "A2", "comm_alg": "hierarchy"}, 28, 238),
        ({"comm_alg": "hierarchy"}, 14, 632),
        ({"comm_alg": "hierarchy", "ep_world_size": 32, "max_bs": 256}, 109, 1314),
    ],
)
def test_our_own_window_over_several_servers(changes, own, stock):
    """That the formulas are those of the kernels is in tests/kernels/test_window.py."""
    assert deployment(implementation="ascend_moe", **changes).mb == own
    assert deployment(**changes).mb == stock
