"""Ranks die, the others meet through their windows and go on with the oracle's bits; everything else has a name."""

import re
from pathlib import Path

OURS = {"ASCEND_MOE_KERNELS": "require", "ASCEND_MOE_TIMEOUT_S": "15"}


def told(done, case: str) -> dict[int, list[str]]:
    """By rank, what it printed."""
    found: dict[int, list[str]] = {}
    for rank, text in re.findall(rf"^{case} rank (\d): (.*)", done.stdout, re.MULTILINE):
        found.setdefault(int(rank), []).append(text)
    return found


def left_in_shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir() if re.search("vnpu|hccl", path.name)}


def test_two_deaths_and_the_graphs_of_before(run):
    texts = told(run("shrink.py", "deaths", environment=OURS), "deaths")
    for rank, gone in ((1, [0, 2]), (2, [0]), (3, [0, 2])):
        lines = texts[rank]
        for victim in gone:
            death, missing, graphs, before = (lines.pop(0) for _ in range(4))
            assert "did not come" in death
            assert missing == f"missing: [{victim}]"
            so_far = gone[: gone.index(victim) + 1]
            names = ", ".join(map(str, so_far))
            assert graphs.count("captured before ascend_moe.shrink") == len(so_far)
            assert graphs.count(f"goes on without ranks {names}") == len(so_far)
            assert (
                f"goes on without ranks {names} (ascend_moe.shrink): pass the elastic_info"
                in before
            )
        assert lines == (["served"] if rank != 2 else [])
    assert not left_in_shared_memory()


def test_two_at_once_with_shared_experts_and_a_failure_without_a_death(run):
    texts = told(run("shrink.py", "together", environment=OURS), "together")
    for rank in (0, 2):
        _, mistake, missing, served = texts[rank]
        assert "made another call" in mistake
        assert (missing, served) == ("missing: []", "served")


def test_views_and_ranks_that_are_left_out(run):
    texts = told(run("shrink.py", "views", environment=OURS), "views")
    for rank in range(4):
        itself, nobody, no_group, differ = texts[rank][:4]
        assert f"ValueError: ascend_moe.shrink on rank {rank}" in itself
        assert f"dead_ranks has {rank}, which is this rank" in itself
        assert "names nobody who is not gone already" in nobody
        assert "names no CPU group" in no_group
        assert "none that the kernel library has opened" in no_group
        assert "PeerError" in differ
        assert "disagree about who is gone" in differ
        assert f"rank {rank} says [{(rank + 1) % 4}]" in differ
    left_out, later = texts[3][4:]
    for text in (left_out, later):
        assert "rank 3 of group" in text
        assert re.search(r"go on without it \(ascend_moe.shrink on rank [012]\)", text)
    assert "PeerError (1,)" in texts[0][4]  # rank 2 is thought to be gone; rank 1 did not come
    assert "rank 1 did not come in time" in texts[0][4]


def test_groups_that_cannot(run):
    texts = told(run("shrink.py", "refused", environment={"ASCEND_MOE_KERNELS": "off"}), "refused")
    for lines in texts.values():
        unused, served = lines
        assert "none that the kernel library has opened" in unused
        assert "CANN's own kernels serve it" in served
    texts = told(run("shrink.py", "refused", product="A2", environment=OURS), "refused")
    assert all("on A2 the operators take no elastic_info (X-30)" in t[1] for t in texts.values())
