"""After a fault of the program around the calls: no wrong row, no dead process, no hang. Kinds as in tests/cpu."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

Run = Callable[..., subprocess.CompletedProcess[str]]


def by_rank(run: Run, case: str, **environment: str) -> list[list[str]]:
    """What came of the calls of both ranks."""
    done = run("faults.py", case, environment=environment, timeout=100)
    found = re.findall(rf"^{case} rank (\d): (.*)", done.stdout, re.MULTILINE)
    assert sorted(rank for rank, _ in found) == ["0", "1"], done.stdout
    return [text.split(" | ") for _, text in sorted(found)]


def test_wrong_types_are_refused_and_the_group_goes_on(run: Run):
    for first, *refused, last in by_rank(run, "wrong_types"):
        assert [first, last] == ["right", "right"]
        assert len(refused) == 16
        for text in refused:
            assert text.startswith("ConstraintError: npu_moe_distribute_dispatch_v2: ")
            assert re.search(
                "E-14 error (x|expert_ids|scales|moe_expert_num|group_ep): must be|D-02|X-35", text
            )


def test_more_memory_than_the_device_has(run: Run):
    for first, *refused, last in by_rank(run, "memory"):
        assert [first, last] == ["right", "right"]
        for text, size in zip(refused, ("256.00 GiB", "1048576.00 GiB"), strict=True):
            assert text.startswith(f"OutOfMemoryError: NPU out of memory. Tried to allocate {size}")


def test_a_forked_child_does_not_speak_for_its_parent(run: Run):
    """An open device is its parent's. The child would wait for ever for threads that the fork left behind."""
    parent, (first, asked, ended, *later) = by_rank(run, "forked")
    assert parent == ["right"] * 3
    assert [first, ended, *later] == ["right", "child 0", "right", "right"]
    assert asked.startswith("PeerError: ")
    assert "this process was forked from a rank of it" in asked


def test_interrupted_calls(run: Run):
    """A call that has begun is the device's, and ends; who skips one is named to the end of the group."""
    peer, victim = by_rank(
        run, "interrupted", ASCEND_MOE_TIMEOUT_S="5", ASCEND_MOE_KERNELS="require"
    )
    assert peer[:3] == ["right"] * 3
    assert victim[:4] == ["right", "stopped, right", "right", "stopped"]
    for rank, texts in ((1, peer[3:]), (0, victim[4:])):
        for text in texts:
            assert text.startswith("RuntimeError: ")
            assert re.search(rf"rank {rank} (did not come|made another call)", text), text
