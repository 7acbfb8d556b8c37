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


@pytest.mark.parametrize(
    ("ranks", "cores", "gone"), [(4, 3, (3,)), (5, 1, (0, 2)), (8, 2, (1, 2, 3)), (3, 4, (0, 1))]
)
def test_those_who_are_left_meet_without_the_others(ranks, cores, gone):
    """Nothing is written to who is gone, and nobody waits for it."""
    for seed in range(15):
        schedule = Schedule(seed=seed, uneven=seed % 2 == 0, landing_percent=(3, 30, 70)[seed % 3])
        assert MeetingCase(ranks, cores, rounds=2, gone=gone).run(schedule).problems == []
