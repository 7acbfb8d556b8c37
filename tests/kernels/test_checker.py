"""Every class of mistake is found in a kernel made for it, both sides named; correct twins are clean."""

import re
from pathlib import Path

import pytest
import torch

from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

MISTAKES = {
    "mini_hazard_load": "hazard",
    "mini_hazard_vector": "hazard",
    "mini_hazard_store": "hazard",
    "mini_hazard_reuse": "hazard",
    "mini_hazard_scalar": "hazard",
    "mini_hazard_reduce_behind_a_store": "hazard",
    "mini_hazard_index_behind_a_store": "hazard",
    "mini_align_ub": "align",
    "mini_align_gm": "align",
    "mini_align_scalar": "align",
    "mini_align_vector": "align",
    "mini_align_count": "align",
    "mini_align_repeat": "align",
    "mini_align_width": "align",
    "mini_align_store_ub": "align",
    "mini_align_store_gm": "align",
    "mini_align_scalar_write": "align",
    "mini_align_vector_source": "align",
    "mini_align_store_count": "align",
    "mini_align_padding": "align",
    "mini_align_compare_int": "align",
    "mini_align_gather_mask": "align",
    "mini_align_max_index": "align",
    "mini_align_brcb": "align",
    "mini_align_scalar_barrier": "align",
    "mini_align_cast": "align",
    "mini_align_compare": "align",
    "mini_align_block_len": "align",
    "mini_align_overlap": "align",
    "mini_align_brcb_in_place": "align",
    "mini_align_block_max_in_place": "align",
    "mini_align_gather_mask_of_nothing": "align",
    "mini_align_reduce_of_nothing": "align",
    "mini_align_gather_count": "align",
    "mini_align_gather_offset": "align",
    "mini_align_gather_in_place": "align",
    "mini_ub_capacity": "ub-capacity",
    "mini_ub_bounds": "ub-bounds",
    "mini_ub_bounds_reduce_work": "ub-bounds",
    "mini_ub_bounds_reduce_result": "ub-bounds",
    "mini_gm_bounds": "gm-bounds",
    "mini_gm_bounds_write": "gm-bounds",
    "mini_uninit_ub": "uninit",
    "mini_uninit_gm": "uninit",
    "mini_uninit_padding": "uninit",
    "mini_uninit_scalar_ub": "uninit",
    "mini_uninit_scalar_gm": "uninit",
    "mini_uninit_deq_scale": "uninit",
    "mini_add_uninit": "uninit",
    "mini_add_left_on": "event",
    "mini_event_left_set": "event",
    "mini_event_never_set": "event",
    "mini_event_set_twice": "event",
    "mini_event_id": "event",
    "mini_event_id_of_others": "event",
    "mini_event_too_many_ids": "event",
    "mini_event_too_many_ids_of_two": "event",
    "mini_event_of_a_queue": "event",
    "mini_pipe_65_buffers": "pipe",
    "mini_pipe_empty_buffer": "pipe",
    "mini_pipe_second": "pipe",
    "mini_pipe_old_buffer": "pipe",
    "mini_pipe_old_queue": "pipe",
    "mini_queue_leak": "queue",
    "mini_queue_empty": "queue",
    "mini_queue_too_many_tensors": "queue",
    "mini_queue_never_allocated": "queue",
    "mini_queue_never_dequeued": "queue",
    "mini_scalar_cache_dirty": "scalar-cache",
    "mini_scalar_cache_stale": "scalar-cache",
}


def run(*kernels, blocks=1, schedule=None):
    """Launches the kernels on a stream each; (finished, findings, deadlock report)."""
    with Simulator(schedule or Schedule()) as simulator:
        source = simulator.put(0, torch.ones(256), "in")
        target = simulator.alloc(0, 1024, "out")
        for stream, kernel in enumerate(kernels):
            simulator.launch(0, kernel, [source, target], blocks, stream)
        finished = simulator.run()
        return finished, simulator.findings, simulator.deadlock


@pytest.mark.parametrize("kernel", MISTAKES)
@pytest.mark.parametrize("alone", [False, True])
def test_every_mistake_is_found_on_every_schedule(kernel, alone):
    """Also with one rank per process, as on the virtual NPU."""
    for seed in range(5):
        finished, findings, _ = run(kernel, schedule=Schedule(seed=seed, alone=alone))
        assert finished
        kinds = {finding["kind"] for finding in findings}
        assert MISTAKES[kernel] in kinds
        # Who does not wait for a load may also find that it has not happened yet.
        assert kinds <= {MISTAKES[kernel], "uninit"}
        assert all(finding["kernel"] == kernel for finding in findings)
        assert all("kernels/mini_" in finding["where"] for finding in findings)


@pytest.mark.parametrize(
    ("kernel", "blocks"),
    [
        ("mini_correct", 1),
        ("mini_scalar_cache_cleaned", 1),
        ("mini_block_taken_over", 3),
        ("mini_add", 4),
        ("mini_flag_after_data", 2),
        ("mini_sync_all_drained", 2),
        ("mini_nothing", 48),
        ("mini_event_ids", 1),
        ("mini_event_fetched", 1),
        ("mini_pipe_64_buffers", 1),
        ("mini_queue_two_deep", 1),
        ("mini_gather", 1),
        ("mini_reduce", 1),
        ("mini_reduce_behind_a_store", 1),
        ("mini_index_behind_a_store", 1),
    ],
)
def test_correct_kernels_have_no_finding(kernel, blocks):
    for seed in range(40):
        assert run(kernel, blocks=blocks, schedule=Schedule(seed=seed)) == (True, [], "")


def test_a_hazard_names_both_accesses():
    _, findings, _ = run("mini_hazard_store")
    finding = findings[0]
    assert finding["rank"] == 0
    assert finding["core"] == 0
    assert "MTE3 reads" in finding["text"]
    assert "written by V at" in finding["text"]
    assert finding["where"] not in finding["text"]


def test_two_cores_in_one_block():
    _, findings, _ = run("mini_block_sharing", blocks=2)
    assert {finding["kind"] for finding in findings} == {"block-sharing"}
    other = 1 - findings[0]["core"]
    assert f"core {other} writes at " in findings[0]["text"]


def test_two_cores_in_one_cache_line():
    """Not the same 32 bytes, but the later core writes the other's back as they were."""
    _, findings, _ = run("mini_scalar_line_shared", blocks=2)
    assert [(finding["kind"], finding["core"]) for finding in findings] == [("scalar-cache", 1)]


def test_adding_cores_share_a_block():
    with Simulator(Schedule(seed=3)) as simulator:
        source = simulator.put(0, torch.zeros(256, dtype=torch.int32), "in")
        simulator.launch(0, "mini_add", [source, source], 5)
        assert simulator.run()
        assert simulator.findings == []
        assert simulator.get(source, torch.empty(9, dtype=torch.int32))[0].tolist() == [5] * 8 + [0]


@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        (("mini_correct", "mini_correct"), "written by core 0 of mini_correct at "),
        (
            ("mini_writes_input", "mini_reads_input"),
            "reads 'in' written by core 0 of mini_writes_input",
        ),
        (("mini_writes_input", "mini_reads_input"), "writes 'in' read by mini_reads_input"),
    ],
    ids=["two writers", "read behind a write", "write behind a read"],
)
def test_overlapping_launches(kernels, words):
    """On some schedules they do overlap; then it is found, and both are named."""
    texts = []
    for seed in range(20):
        finished, findings, _ = run(*kernels, schedule=Schedule(seed=seed))
        assert finished
        assert {finding["kind"] for finding in findings} <= {"overlap"}
        texts += [finding["text"] for finding in findings]
    assert any(words in text for text in texts)


def test_one_stream_does_not_overlap():
    with Simulator(Schedule()) as simulator:
        source = simulator.put(0, torch.ones(256), "in")
        for kernel in ("mini_writes_input", "mini_reads_input", "mini_writes_input"):
            simulator.launch(0, kernel, [source, source], 2 if "reads" in kernel else 1)
        assert simulator.run()
        assert simulator.findings == []


@pytest.mark.parametrize("patience", [0, 3])
def test_deadlock_says_who_waits_for_what(patience):
    finished, _, report = run("mini_deadlock", blocks=2, schedule=Schedule(patience=patience))
    assert not finished
    assert report.splitlines() == [
        f"rank 0 core {core} of mini_deadlock: a flag of rank 7, epoch 1" for core in (0, 1)
    ]


def test_with_one_rank_per_process_blocked_everywhere_is_a_timeout():
    """A poll may be answered from outside at any time, so only the step limit ends it; then who waits is said."""
    finished, _, report = run(
        "mini_deadlock", blocks=2, schedule=Schedule(alone=True, max_steps=5000)
    )
    assert not finished
    first, *waiting = report.splitlines()
    assert first == "no progress within the step limit"
    assert sorted(waiting) == [
        f"rank 0 core {core} of mini_deadlock: a flag of rank 7, epoch 1" for core in (0, 1)
    ]


@pytest.mark.parametrize("alone", [False, True])
def test_a_core_that_hangs_for_a_buffer_ends_the_run(alone):
    """AllocTensor looks for a free buffer for ever, and only the core itself could free one.

    With one rank per process the run ends there, although others poll without a limit.
    """
    finished, findings, report = run(
        "mini_queue_no_buffer", blocks=2, schedule=Schedule(alone=alone, max_steps=100_000)
    )
    assert not finished
    assert "no progress" not in report
    assert re.search(
        r"^rank 0 core 0 of mini_queue_no_buffer: AllocTensor at .*/mini_queues.cpp:\d+, "
        r"where no buffer is free$",
        report,
        re.M,
    )
    assert [finding["text"] for finding in findings] == [
        "AllocTensor with no free buffer: the core hangs"
    ]


def test_a_kernel_without_a_pipe_hangs():
    finished, _, report = run("mini_pipe_missing")
    assert not finished
    assert report == "rank 0 core 0 of mini_pipe_missing: GetTPipePtr without a TPipe\n"


def test_a_row_too_many_in_a_queue_goes_wrong_as_on_the_device():
    """The first row's handle is overwritten: that buffer is never free again, and the core hangs for it."""
    finished, findings, report = run("mini_queue_beyond_depth")
    assert not finished
    assert "AllocTensor at " in report
    texts = [finding["text"] for finding in findings]
    assert texts == [
        "EnQue beyond the depth of the queue",
        "FreeTensor of a buffer that was not dequeued",
        "AllocTensor with no free buffer: the core hangs",
    ]
    assert all("kernels/mini_queues.cpp" in finding["where"] for finding in findings)


def test_more_blocks_than_cores():
    finished, findings, _ = run("mini_nothing", blocks=49)
    assert finished
    assert [finding["kind"] for finding in findings] == ["launch"]


@pytest.mark.parametrize("alone", [False, True])
def test_leaving_without_a_sync_all(alone):
    finished, findings, report = run(
        "mini_sync_all_skipped", blocks=2, schedule=Schedule(alone=alone)
    )
    assert not finished
    assert report.startswith("rank 0 core 0 of mini_sync_all_skipped: SyncAll at ")
    assert {finding["kind"] for finding in findings} == {"launch"}


@pytest.mark.parametrize("kernel", ["mini_flag_overtakes", "mini_sync_all_undrained"])
def test_unordered_copies_are_late_on_some_schedule(kernel):
    noticed = [seed for seed in range(40) if run(kernel, blocks=2, schedule=Schedule(seed=seed))[1]]
    assert len(noticed) >= 2


def test_the_same_seed_is_the_same_run():
    def steps(seed):
        with Simulator(Schedule(seed=seed)) as simulator:
            source, target = (
                simulator.put(0, torch.ones(256), "in"),
                simulator.alloc(0, 1024, "out"),
            )
            simulator.launch(0, "mini_block_taken_over", [source, target], 4)
            assert simulator.run()
            return simulator.steps

    assert steps(7) == steps(7)
    assert len({steps(seed) for seed in range(8)}) > 1


def test_every_kind_of_finding_is_documented():
    root = Path(__file__).parents[2]
    sources = "".join(
        path.read_text()
        for folder in ("api", "sim")
        for path in (root / "kernels/hostsim" / folder).iterdir()
    )
    kinds = set(re.findall(r'\b(?:Report|findings\.Add)\(\s*"([a-z-]+)"', sources))
    rows = re.findall(
        r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", (root / "docs/hostsim.md").read_text(), re.M
    )
    documented = {kind for row in rows for kind in re.findall(r"`([a-z-]+)`", row)}
    assert kinds <= documented
    assert len(kinds) == 16
