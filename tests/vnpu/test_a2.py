"""Ours or stock on A2: as HCCL says where the ranks are, never by their number."""

from __future__ import annotations

import pytest

from ascend_moe.contract.limits import RANKS_PER_SERVER


def machine(devices: int, servers: int) -> dict[str, str]:
    return {"ASCEND_MOE_VNPU_DEVICES": str(devices), "ASCEND_MOE_VNPU_SERVERS": str(servers)}


def played(run, ranks: int, cases: int, **environment: str) -> str:
    """What was said; the operators were right."""
    words = ("golden_cases.py", ranks, 1, "A2")
    said = run(*words, product="A2", environment=environment, timeout=300).stdout
    assert f"{cases} golden cases equal on {ranks} ranks" in said
    return said


def test_one_server_runs_ours_by_itself(run):
    """Through the windows of HCCL's mesh: 9.0 and 9.1 have no kfc on A2, and 8.5 has none at all."""
    for played_cann in ({}, {"ASCEND_MOE_VNPU_CANN": "8.5.0"}):
        said = run(
            *("random_worlds.py", 3, 1, 2, "A2"),
            product="A2",
            environment=played_cann | {"ASCEND_MOE_KERNELS": "require"},
        ).stdout
        assert "2 random worlds equal on 3 ranks" in said
        assert "kernels=ours (ABI 3, 3 ranks, windows of 200 MB through tiling)" in said


def test_auto_chooses_ours(run):
    said = run("a2.py", "auto", product="A2").stdout
    assert "right" in said
    assert "kernels=ours (ABI 3, 2 ranks, windows of 200 MB through tiling)" in said


def test_several_servers_run_stock(run):
    """Sixteen ranks on two servers, with nobody asked."""
    said = played(run, 16, 1, **machine(16, 2))
    assert (
        "kernels=stock (on A2 they serve one server, the group is on 2 servers, of 8 and 8 ranks; in this one ranks 0,"
        in said
    )


def test_without_a_rank_graph_stock_runs(run):
    """An HCCL before 8.5; what is missing has a name."""
    said = played(run, 8, 3, ASCEND_MOE_VNPU_HIDE="graph")
    why = "HCCL does not say where the ranks are: CANN has no HcclRankGraphGetLayers, "
    assert f"kernels=stock (on A2 they serve one server, and {why}" in said


@pytest.mark.parametrize(
    ("kernels", "how"),
    [
        ("auto", ["hccl"]),
        ("auto", ["store"]),
        ("require", ["hccl"]),
        ("auto", ["hccl", 1]),  # one rank has said off
    ],
)
def test_few_ranks_on_two_servers_are_refused(run, kernels, how):
    """CANN's kernels would take them for one server (vllm-ascend#16193: EP8 over two A2)."""
    environment = machine(4, 2) | {"ASCEND_MOE_KERNELS": kernels}
    said = run("a2.py", "refused", *how, product="A2", environment=environment).stdout
    assert said.count("refused: ") == 4
    for line in [line for line in said.splitlines() if "refused: " in line]:
        assert "group_ep " in line
        assert "of 4 ranks is on 2 servers: ranks 0, 1 on one; ranks 2, 3 on another" in line
        assert f"(hosts: {'ranks 0, 2, 3' if how[1:] else 'all ranks'}: " in line
        assert f"take up to {RANKS_PER_SERVER} ranks for one server" in line
        assert "Put all ranks of the group on one server" in line


def test_off_warns(run):
    said = played(run, 8, 3, **machine(8, 2) | {"ASCEND_MOE_KERNELS": "off"})
    assert "ascend-moe: warning: group_ep " in said
    assert "on 2 servers: ranks 0, 1, 2, 3 on one; ranks 4, 5, 6, 7 on another" in said


@pytest.mark.ci
def test_cann_8_5_reaches_both_servers(run):
    """Its kernels know no way of one server: all rows take RDMA."""
    said = played(run, 8, 3, **machine(8, 2) | {"ASCEND_MOE_VNPU_CANN": "8.5.0"})
    assert "kernels=stock (on A2 they serve one server" in said
