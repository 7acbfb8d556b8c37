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
        assert "kernels=ours (ABI 4, 3 ranks, windows of 200 MB through tiling)" in said


def test_auto_chooses_ours(run):
    said = run("a2.py", "auto", product="A2").stdout
    assert "right" in said
    assert "kernels=ours (ABI 4, 2 ranks, windows of 200 MB through tiling)" in said


def test_several_servers_run_ours(run):
    """Golden data of the vendor's full mesh, on two servers."""
    said = played(run, 16, 1, **machine(16, 2) | {"ASCEND_MOE_KERNELS": "require"})
    assert "kernels=ours (ABI 4, 16 ranks on 2 servers, windows of 200 MB through rdma)" in said


def test_without_a_rank_graph_stock_runs(run):
    """An HCCL before 8.5; what is missing has a name."""
    said = played(run, 8, 3, ASCEND_MOE_VNPU_HIDE="graph")
    why = "HCCL does not say where the ranks are: CANN has no HcclRankGraphGetLayers, "
    assert f"kernels=stock (on A2 they need to know the servers, and {why}" in said


def test_few_ranks_on_two_servers_run_ours(run):
    """CANN's kernels would take them for one server (vllm-ascend#16193: EP8 over two A2)."""
    said = run(
        *("random_worlds.py", 4, 1, 3, "A2"),
        product="A2",
        environment=machine(4, 2) | {"ASCEND_MOE_KERNELS": "require"},
    ).stdout
    assert "3 random worlds equal on 4 ranks" in said
    assert "kernels=ours (ABI 4, 4 ranks on 2 servers, windows of 200 MB through rdma)" in said


def refused(run, devices: int, *how: object, **environment: str) -> list[str]:
    """What each of four ranks on two servers was told, twice."""
    environment = machine(devices, 2) | environment
    said = run("a2.py", "refused", *how, product="A2", environment=environment).stdout
    lines = [line for line in said.splitlines() if "refused: " in line]
    assert len(lines) == 4
    assert "no error" not in said
    return sorted(lines)


UNEVEN = "full mesh over servers needs equally many ranks on each, in the order of the ranks"
OFF, OLD = (1, "ASCEND_MOE_KERNELS=off"), (1, "ASCEND_MOE_VNPU_DRIVER=24.1.0.3")


@pytest.mark.parametrize(
    ("devices", "how", "kernels", "why"),
    [
        (6, ["hccl"], "auto", UNEVEN),
        (6, ["store"], "auto", UNEVEN),
        (6, ["hccl"], "require", UNEVEN),
        (6, ["hccl", *OFF], "auto", UNEVEN),
        (4, ["hccl", *OFF], "auto", "rank 1: ASCEND_MOE_KERNELS=off"),
        (4, ["hccl", *OLD], "auto", "rank 1: driver 24.1.0.3 lets no vector core post RDMA writes"),
    ],
)
def test_few_ranks_that_nobody_serves_are_refused(run, devices, how, kernels, why):
    there = {4: "ranks 0, 1 on one; ranks 2, 3", 6: "ranks 0, 1, 2 on one; rank 3"}[devices]
    for line in refused(run, devices, *how, ASCEND_MOE_KERNELS=kernels):
        assert f"of 4 ranks is on 2 servers: {there} on another" in line
        assert f"take up to {RANKS_PER_SERVER} ranks for one server" in line
        assert why in line
        assert ("(host " in line) == ("rank 1: ASCEND_MOE_KERNELS" not in line)
        assert "Put all ranks of the group on one server" in line


@pytest.mark.ci
def test_what_can_be_known_is_asked_before_links_are_made(run):
    for line in refused(run, 4, "hccl", ASCEND_MOE_VNPU_HCOMM="9.3.0"):
        assert "do not serve it: all ranks: the private structures of HCCL 9.3.0 are not" in line
        assert "take over" not in line


OLD_DRIVER = "ASCEND_MOE_VNPU_HCCL_PATCH=capability:0:8:3"


def test_when_the_links_are_made_there_is_no_way_back(run):
    """To CANN's kernels: they want others. Every rank says what to do about it."""
    lines = refused(run, 4, "hccl", 1, OLD_DRIVER)
    for rank, line in enumerate(lines):
        assert "no vector core may post RDMA writes here (capability 3 without bit 2)" in line
        assert "CANN's own kernels cannot take over" in line
        assert "ASCEND_MOE_KERNELS=off on all ranks runs them from the start" in line
        assert ("cannot be opened; rank 1: " in line) == (rank != 1)


def test_off_warns(run):
    said = played(run, 8, 3, **machine(8, 2) | {"ASCEND_MOE_KERNELS": "off"})
    assert "ascend-moe: warning: group_ep " in said
    assert "on 2 servers: ranks 0, 1, 2, 3 on one; ranks 4, 5, 6, 7 on another" in said
    assert "ours do not serve it: all ranks: ASCEND_MOE_KERNELS=off" in said


@pytest.mark.ci
def test_cann_8_5_reaches_both_servers(run):
    """Its kernels know no way of one server: all rows take RDMA. Nor do ours ask for whole servers."""
    for kernels, why in (("off", "stock (all ranks: "), ("require", "ours (ABI 4, 8 ranks on 2")):
        chosen = {"ASCEND_MOE_VNPU_CANN": "8.5.0", "ASCEND_MOE_KERNELS": kernels}
        assert f"kernels={why}" in played(run, 8, 3, **machine(8, 2) | chosen)
