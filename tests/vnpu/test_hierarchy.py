"""Our kernels for several servers behind the stock call: 16 processes on two A2 servers, by window and network card."""

from __future__ import annotations

import re
from functools import partial

import pytest
from vnpu_servers import played, texts

from ascend_moe.hardware.error_record import recent_records

played = partial(played, "hierarchy")


def test_layers_graphs_and_refusals(run):
    """Both ways of selecting hierarchy, both ways of asking the other ranks."""
    said = played(run, "by_keyword", "by_variables", "graph", "refused", HCCL_BUFFSIZE="100")
    for case in ("by_keyword", "by_variables", "graph", "refused"):
        assert f"{case} right" in said
    ours = "kernels=ours (ABI 4, 16 ranks on 2 servers, windows of 100 MB through rdma)"
    assert said.count(ours) == 4
    told = texts(said)
    for rank in range(16):
        assert "this call says full mesh, but group_ep " in told["other", rank]
        assert "runs our kernels of hierarchy since its first call" in told["other", rank]
        assert "hierarchy has no zero, copy or const experts" in told["const", rank]
        small = told["small", rank]
        assert (
            "HCCL_BUFFSIZE is too SMALL for the kernels of ascend_moe: the group has 100 MB"
            in small
        )
        assert re.search(r"NEEDED_HCCL_BUFFSIZE = \d+ MB \(\d+ bytes for max_bs=512, H=8192", small)


def test_a_rank_that_dies_is_named_with_its_link(run, tmp_path, monkeypatch):
    said = played(run, "dead", XDG_CACHE_HOME=str(tmp_path))
    told = texts(said)
    assert set(told) == {("dead", rank) for rank in range(15)}
    rail, mates = told["dead", 7], [told["dead", rank] for rank in range(8, 15)]
    assert "rank 15 did not come (time limit 533 s). It is in another server" in rail
    for mate in mates:
        assert "rank 15 did not come (time limit 533 s). It died, or has made another call" in mate
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    records = {record.ep_rank: record for record in recent_records()}
    assert (records[7].missing_rank, records[7].link) == (15, "network")
    assert "rank 15 did not come, over the network" in str(records[7])
    assert (records[8].missing_rank, records[8].link) == (15, "server")


@pytest.mark.ci
def test_a_dead_queue_is_named_by_who_waits_for_its_messages(run):
    """From rank 3 to rank 11, once the first layer is done: 2 messages of opening, 3 and 2 of the layer."""
    dead = {"ASCEND_MOE_VNPU_DEAD_QUEUE": "3:11:7", "ASCEND_MOE_TIMEOUT_S": "10"}
    told = texts(played(run, "dead", **dead))
    assert "rank 3 did not come (time limit 10 s). It is in another server" in told["dead", 11]
    assert "the link between the two is down" in told["dead", 11]
    for rank in range(8, 16):
        if rank != 11:
            assert "rank 11 did not come (time limit 10 s). It died" in told["dead", rank]
    assert "rank 11 did not come (time limit 10 s). It is in another server" in told["dead", 3]
