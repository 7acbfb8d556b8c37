"""What goes wrong ends in an exception with our text, on every rank that takes part, and never in a hang."""

import re
from pathlib import Path

import pytest

SMALL = "HCCL_BUFFSIZE is too SMALL: the group has 200 MB, NEEDED_HCCL_BUFFSIZE = 478 MB"
MISTAKES = {
    "ranks_disagree": "disagree about moe_expert_num",
    "uneven_batch": "disagree about max_bs",
    "wrong_rank": "in which this is rank",
    "dispatch_meets_combine": "disagree about operator",
    "collectives_disagree": "the ranks disagree: rank",
    "unknown_operator": "SwiGlu",
}


def texts(done) -> dict[tuple[str, int], str]:
    """By case and rank, what the ranks printed."""
    found = re.findall(r"^(\w+) rank (\d): (.*)", done.stdout, re.MULTILINE)
    return {(case, int(rank)): text for case, rank, text in found}


@pytest.mark.parametrize("queue", ["0", "1", "2"])
def test_text_reaches_python(run, queue):
    """A check of phase one, and an error of the kernel on one rank, in each mode of torch_npu's task queue."""
    told = texts(
        run(
            "failures.py",
            "window_too_small",
            "id_out_of_range",
            environment={"TASK_QUEUE_ENABLE": queue},
        )
    )
    for rank in (0, 1):
        assert SMALL in told["window_too_small", rank]
        assert "expert_ids[0, 1]=9, must be in [0, 4)" in told["id_out_of_range", rank]


def test_mistakes_have_a_name(run):
    told = texts(run("failures.py", *MISTAKES))
    for case, text in MISTAKES.items():
        for rank in (0, 1):
            assert text in told[case, rank]


def test_dead_ranks_are_noticed(run):
    told = texts(run("failures.py", "dead_rank", "dead_rank_in_collective"))
    assert "rank 1 is gone" in told["dead_rank", 0]
    assert "rank 1 is gone" in told["dead_rank_in_collective", 0]


def shared_memory_files() -> set[str]:
    """Of communicators; a process that outlives its parent would keep ``run`` from returning."""
    return {path.name for path in Path("/dev/shm").iterdir() if re.search("vnpu|hccl", path.name)}


@pytest.mark.parametrize("how", ["one", "collective"])
def test_a_killed_rank_is_named(run, how):
    done = run("killed.py", how)
    assert "exit codes of the ranks: [0, -9, 0]" in done.stdout
    for rank in (0, 2):
        assert re.search(rf"^rank {rank}: .*rank 1 is gone", done.stdout, re.MULTILINE)
    assert not shared_memory_files()


def test_nothing_is_left_of_killed_ranks(run):
    assert "codes [-9, -9, -9]" in run("killed.py", "all").stdout
    assert not shared_memory_files()
