"""Every class of mistake is found in a kernel made for it, both sides named; correct twins are clean."""

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
    "mini_align_ub": "align",
    "mini_align_cast": "align",
    "mini_align_compare": "align",
    "mini_ub_capacity": "ub-capacity",
    "mini_ub_bounds": "ub-bounds",
    "mini_gm_bounds": "gm-bounds",
    "mini_uninit_ub": "uninit",
    "mini_uninit_gm": "uninit",
    "mini_uninit_padding": "uninit",
    "mini_event_left_set": "event",
    "mini_event_never_set": "event",
    "mini_event_set_twice": "event",
    "mini_queue_leak": "queue",
    "mini_queue_empty": "queue",
    "mini_scalar_cache_dirty": "scalar-cache",
    "mini_scalar_cache_stale": "scalar-cache",
}


def run(kernel, *, blocks=1, seed=1, streams=1):
    with Simulator(Schedule(seed=seed)) as simulator:
        source = simulator.put(0, torch.ones(256), "in")
        target = simulator.alloc(0, 1024, "out")
        for stream in range(streams):
            simulator.launch(0, kernel, [source, target], blocks, stream)
        finished = simulator.run()
        return finished, simulator.findings, simulator.deadlock


@pytest.mark.parametrize("kernel", MISTAKES)
def test_every_mistake_is_found_on_every_schedule(kernel):
    for seed in range(5):
        finished, findings, _ = run(kernel, seed=seed)
        assert finished
        kinds = {finding["kind"] for finding in findings}
        assert MISTAKES[kernel] in kinds
        # Who does not wait for a load may also find that it has not happened yet.
        assert kinds <= {MISTAKES[kernel], "uninit"}
        assert all(finding["kernel"] == kernel for finding in findings)
        assert all("mini_kernels.cpp:" in finding["where"] for finding in findings)


@pytest.mark.parametrize(
    ("kernel", "blocks"),
    [
        ("mini_correct", 1),
        ("mini_scalar_cache_cleaned", 1),
        ("mini_block_taken_over", 3),
        ("mini_flag_after_data", 2),
        ("mini_sync_all_drained", 2),
    ],
)
def test_correct_kernels_have_no_finding(kernel, blocks):
    for seed in range(40):
        assert run(kernel, blocks=blocks, seed=seed) == (True, [], "")


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


def test_overlapping_launches():
    kinds = set()
    for seed in range(20):
        _, findings, _ = run("mini_correct", seed=seed, streams=2)
        kinds |= {finding["kind"] for finding in findings}
    assert kinds == {"overlap"}


def test_deadlock_says_who_waits_for_what():
    finished, _, report = run("mini_deadlock", blocks=2)
    assert not finished
    assert report.splitlines() == [
        f"rank 0 core {core} of mini_deadlock: a flag of rank 7, epoch 1" for core in (0, 1)
    ]


def test_leaving_without_a_sync_all():
    finished, findings, report = run("mini_sync_all_skipped", blocks=2)
    assert not finished
    assert "SyncAll" in report
    assert {finding["kind"] for finding in findings} <= {"launch"}


@pytest.mark.parametrize("kernel", ["mini_flag_overtakes", "mini_sync_all_undrained"])
def test_unordered_copies_are_late_on_some_schedule(kernel):
    noticed = [seed for seed in range(40) if run(kernel, blocks=2, seed=seed)[1]]
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
