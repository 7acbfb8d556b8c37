"""The counters of a launch: small kernels whose every byte and instruction is known."""

import pytest
import torch

from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")

BYTES = 1024
"""Of the 256 floats that mini kernels load or store at once."""


def counted(kernel, *, blocks=1, rank=0):
    """The counters of a kernel of that rank, whose tensors are rank 0's."""
    with Simulator(Schedule(seed=2)) as simulator:
        source = simulator.put(0, torch.ones(256), "in")
        target = simulator.put(0, torch.zeros(256), "out")
        launch = simulator.launch(rank, kernel, [source, target], blocks)
        assert simulator.run()
        return simulator.counters(launch)


NOTHING = {
    "read_own": 0,
    "read_remote": 0,
    "write_own": 0,
    "write_remote": 0,
    "scalar_read": 0,
    "scalar_write": 0,
    "poll_bytes": 0,
    "polls": 0,
    "vector_instructions": 0,
    "vector_elements": 0,
    "messages": 0,
    "message_bytes": 0,
    "sync_alls": 0,
    "peak_ub": 2 * BYTES,
    "clock_reads": 0,
    "copies": {},
}


def test_own_copies_and_vector_instructions():
    assert counted("mini_correct") == NOTHING | {
        "read_own": BYTES,
        "write_own": BYTES,
        "vector_instructions": 3,
        "vector_elements": 3 * 256,
        "copies": {"1024": 2},
    }


def test_memory_of_another_rank_is_remote():
    assert counted("mini_correct", rank=1) == NOTHING | {
        "read_remote": BYTES,
        "write_remote": BYTES,
        "vector_instructions": 3,
        "vector_elements": 3 * 256,
        "copies": {"1024": 2},
    }


def test_scalars_go_through_the_cache():
    assert counted("mini_scalar_cache_cleaned") == NOTHING | {"scalar_write": 4}
    stale = counted("mini_scalar_cache_stale")
    assert (stale["scalar_read"], stale["scalar_write"]) == (8, 0)


def test_sync_alls_count_once_for_all_cores():
    three = counted("mini_block_taken_over", blocks=3)
    assert three["sync_alls"] == 3
    assert (three["write_own"], three["vector_instructions"]) == (3 * 32, 3)


def test_polls_are_counted_apart():
    found = counted("mini_flag_after_data", blocks=2)
    assert found["polls"] >= 1
    assert found["poll_bytes"] == 32 * found["polls"]
    assert found["read_own"] == 192 * 4
    assert found["write_own"] == 192 * 4 + 32
    assert found["copies"] == {"32": 1, "1024": 2}
