"""The meeting before a group is opened: every rank hears what is new of every other, whatever lies in the windows."""

import pytest

from kernels.proof.simulator import Schedule
from kernels.proof.small_cases import MeetingCase

pytestmark = pytest.mark.usefixtures("proof_library")


@pytest.mark.parametrize(("ranks", "cores"), [(2, 1), (2, 5), (3, 2), (8, 3), (20, 1)])
def test_what_is_heard_is_of_this_meeting(ranks, cores):
    """Three meetings on the same windows, the blocks of the one before still there."""
    for seed in range(25):
        schedule = Schedule(seed=seed, uneven=seed % 2 == 0, landing_percent=(3, 30, 70)[seed % 3])
        assert MeetingCase(ranks, cores, rounds=3).run(schedule).problems == []
