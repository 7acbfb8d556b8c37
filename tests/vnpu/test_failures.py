"""What goes wrong ends in an exception with our text, on every rank that takes part, and never in a hang."""

import re
from pathlib import Path

import pytest

from ascend_moe.hardware.error_record import recent_records

OURS = {"ASCEND_MOE_KERNELS": "require", "ASCEND_MOE_TIMEOUT_S": "5"}
STOCK = {"ASCEND_MOE_KERNELS": "off"}

# By case, what every rank is told with our kernels and with those that stand for CANN's.
MISTAKES = {
    "ranks_disagree": ("made another call", "disagree about moe_expert_num"),
    "uneven_batch": ("made another call", "disagree about max_bs"),
    "wrong_rank": ("in which this is rank", "in which this is rank"),
    "dispatch_meets_combine": ("did not come (time limit 5 s)", "disagree about operator"),
    "collectives_disagree": ("the ranks disagree: rank", "the ranks disagree: rank"),
    "unknown_operator": ("FastGelu", "FastGelu"),
}


def texts(done) -> dict[tuple[str, int], str]:
    """By case and rank, what the ranks printed."""
    found = re.findall(r"^(\w+) rank (\d): (.*)", done.stdout, re.MULTILINE)
    return {(case, int(rank)): text for case, rank, text in found}


@pytest.mark.parametrize("queue", ["0", "1", "2"])
def test_text_reaches_python(run, queue):
    """A window too small for our kernels, and a kernel that gave up, in each mode of torch_npu's task queue."""
    environment = OURS | {"TASK_QUEUE_ENABLE": queue, "HCCL_BUFFSIZE": "1"}
    told = texts(run("failures.py", "window_too_small", "ranks_disagree", environment=environment))
    for rank in (0, 1):
        small = told["window_too_small", rank]
        # 64 tokens of 14336 bytes, 2 lists of 512 rows of 8 bytes, four times; 256 KiB of control words.
        assert "the group has 1 MB, NEEDED_HCCL_BUFFSIZE = 2 MB (3964928 bytes" in small
        assert "the largest max_bs that fits is 31" in small
        assert f"rank {1 - rank} made another call" in told["ranks_disagree", rank]


@pytest.mark.parametrize("queue", ["0", "1", "2"])
def test_text_of_stock_operators(run, queue):
    environment = STOCK | {"TASK_QUEUE_ENABLE": queue}
    told = texts(run("failures.py", "window_too_small", "id_out_of_range", environment=environment))
    for rank in (0, 1):
        assert (
            "the group has 200 MB, NEEDED_HCCL_BUFFSIZE = 478 MB" in told["window_too_small", rank]
        )
        assert "expert_ids[0, 1]=9, must be in [0, 4)" in told["id_out_of_range", rank]


@pytest.mark.parametrize(("kernels", "column"), [(OURS, 0), (STOCK, 1)], ids=["ours", "stock"])
def test_mistakes_have_a_name(run, kernels, column):
    told = texts(run("failures.py", *MISTAKES, environment=kernels))
    for case, expected in MISTAKES.items():
        for rank in (0, 1):
            assert expected[column] in told[case, rank]


def test_dead_ranks_are_noticed(run, tmp_path, monkeypatch):
    """At once, long before the time limit: the virtual NPU sees that the process has ended."""
    run("failures.py")  # or the virtual NPU would be built in the cache of the next line
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no other test's records
    environment = {"ASCEND_MOE_KERNELS": "require", "XDG_CACHE_HOME": str(tmp_path)}
    cases = ("dead_rank", "dead_in_kernel", "call_after_failure")
    told = texts(run("failures.py", *cases, environment=environment))
    after = told["call_after_failure", 0]
    assert after.startswith("npu_moe_distribute_dispatch_v2:")  # raised by the call
    assert "rank 1 did not come" in after
    assert "rank 1 did not come (time limit 533 s)" in told["dead_rank", 0]
    assert "rank 1 did not come (time limit 533 s)" in told["dead_in_kernel", 0]
    # What doctor will say, too: hardware has no stream that fails.
    record = recent_records()[-1]
    assert (record.ep_rank, record.missing_rank, record.virtual_npu) == (0, 1, True)
    assert record.op == "npu_moe_distribute_dispatch_v2"
    assert (tmp_path / "ascend-moe/errors").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.json")} == {0o600}
    written = len(list(tmp_path.rglob("*.json")))
    (tmp_path / "ascend-moe").chmod(0o777)  # nothing is written where others can write
    run("failures.py", "dead_rank", environment=environment)
    assert len(list(tmp_path.rglob("*.json"))) == written
    told = texts(run("failures.py", "dead_rank", "dead_rank_in_collective", environment=STOCK))
    assert "rank 1 is gone" in told["dead_rank", 0]
    assert "rank 1 is gone" in told["dead_rank_in_collective", 0]


def test_a_full_send_queue_is_named(run):
    told = texts(run("failures.py", "full_queue", environment=OURS))
    for rank in (0, 1):
        said = f"the send queue to rank {1 - rank}, over the network, stayed full (time limit 5 s)"
        assert said in told["full_queue", rank]


def shared_memory_files() -> set[str]:
    """Of communicators; a process that outlives its parent would keep ``run`` from returning."""
    return {path.name for path in Path("/dev/shm").iterdir() if re.search("vnpu|hccl", path.name)}


@pytest.mark.parametrize("how", ["one", "collective"])
def test_a_killed_rank_is_named(run, how):
    done = run("killed.py", how)
    assert "exit codes of the ranks: [0, -9, 0]" in done.stdout
    for rank in (0, 2):
        assert re.search(
            rf"^rank {rank}: .*rank 1 (is gone|did not come)", done.stdout, re.MULTILINE
        )
    assert not shared_memory_files()


def test_nothing_is_left_of_killed_ranks(run):
    assert "codes [-9, -9, -9]" in run("killed.py", "all").stdout
    assert not shared_memory_files()
