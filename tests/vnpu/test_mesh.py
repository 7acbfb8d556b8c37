"""Full mesh over several A2 servers behind the stock call: our kernels, by window and network card, without a relay."""

from __future__ import annotations

import re
from functools import partial

import pytest
from vnpu_servers import played, texts

from ascend_moe.hardware.error_record import recent_records

played = partial(played, "fullmesh")
OURS = "kernels=ours (ABI 4, 16 ranks on 2 servers, windows of 100 MB through rdma)"


def test_layers_graphs_refusals_and_a_rank_that_dies(run, tmp_path, monkeypatch):
    """As vLLM calls them where nobody has selected hierarchy. The last case ends the ranks."""
    cases = ("by_default", "by_keyword", "graph", "refused")
    unselected = {"HCCL_INTRA_PCIE_ENABLE": "0", "HCCL_INTRA_ROCE_ENABLE": "1"}
    environment = unselected | {"HCCL_BUFFSIZE": "100", "XDG_CACHE_HOME": str(tmp_path)}
    said = played(run, *cases, "dead", **environment)
    for case in cases:
        assert f"{case} right" in said
    assert said.count(OURS) == len(cases) + 1
    told = texts(said)
    for rank in range(16):
        assert "this call says hierarchy, but group_ep " in told["other", rank]
        assert "runs our kernels of full mesh since its first call" in told["other", rank]
        assert "const_expert_num is given, which A2 full mesh does not have" in told["const", rank]
        assert "the group has 100 MB, NEEDED_HCCL_BUFFSIZE = " in told["small", rank]
        assert re.search(r"\(\d+ bytes for max_bs=256, H=7168", told["small", rank])
    assert {rank for case, rank in told if case == "dead"} == set(range(15))
    for rank in range(15):
        where = "It is in another server" if rank < 8 else "It died, or has made another call"
        assert f"rank 15 did not come (time limit 533 s). {where}" in told["dead", rank]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    links = {record.ep_rank: record.link for record in recent_records()}
    assert links == {rank: "network" if rank < 8 else "server" for rank in range(15)}


@pytest.mark.ci
def test_a_dead_queue_is_named_by_who_waits_for_its_messages(run):
    """From rank 3 to rank 11, once the first layer is done: 2 messages of opening, 4 and 2 of the layer."""
    dead = {"ASCEND_MOE_VNPU_DEAD_QUEUE": "3:11:8", "ASCEND_MOE_TIMEOUT_S": "10"}
    told = texts(played(run, "dead", **dead))
    assert "rank 3 did not come (time limit 10 s). It is in another server" in told["dead", 11]
    assert "the link between the two is down" in told["dead", 11]
    for rank in set(range(16)) - {11}:
        assert "rank 11 did not come (time limit 10 s). It " in told["dead", rank]
