"""Ours or stock is agreed by all ranks before anything of ours runs: ``auto`` never makes things worse.

Both ways for the ranks' words: the rendezvous store (calls through ascend_moe) and HcclAllGather (bare torch_npu).
"""

import re
from functools import cache
from typing import NamedTuple

import pytest
from vnpu_launch import start

WAYS = ("kfc", "tiling", "virtual-npu")
BROKEN = tuple(f"broken_{way}" for way in WAYS)
BOTH = pytest.mark.parametrize("how", ["store", "hccl"])
RANKS = (0, 1, 2)
# One program plays all cases that go with the same environment.
TOGETHER = (
    "all_well",
    "required_everywhere",
    "off",
    "off_but_required",
    "unknown_value",
    "absent",
    "other_way",
    *BROKEN,
)

pytestmark = pytest.mark.usefixtures("run")


class Told(NamedTuple):
    """What a program printed."""

    texts: dict[tuple[str, int], str]  # by case and rank
    choices: dict[str, str]  # by case: the line about whose kernels run

    def right(self, case: str) -> bool:
        """Whether every rank had what the oracle says."""
        return all(self.texts[case, rank] == "right" for rank in RANKS)


@cache
def told(how: str, *cases: str, **environment: str) -> Told:
    waits = {"HCCL_CONNECT_TIMEOUT": "6", "ASCEND_MOE_TIMEOUT_S": "6"}
    # A rank without the library dies in torch_npu's watchdog when the others have gone.
    done = start("choice.py", how, *cases, environment=waits | environment, code=None, timeout=500)
    texts: dict[tuple[str, int], str] = {}
    choices: dict[str, str] = {}
    choice = ""
    for line in done.stdout.splitlines():
        if found := re.match(r"ascend-moe: group \S+: kernels=(.*)", line):
            choice = found[1]
        if found := re.match(r"([\w-]+) rank (\d): (.*) \(after \d+ s\)", line):
            texts[found[1], int(found[2])] = found[3]
            choices.setdefault(found[1], choice)
    return Told(texts, choices)


@BOTH
@pytest.mark.parametrize("way", WAYS)
def test_a_provider_broken_on_one_rank(how, way):
    """All run CANN's operators, with right results, and one line names the rank and why."""
    found = told(how, *TOGETHER)
    assert found.right(f"broken_{way}")
    line = found.choices[f"broken_{way}"]
    assert line.startswith("stock (")
    assert "rank 1: ASCEND_MOE_WINDOWS=shmem is none of kfc, tiling" in line
    if way != "virtual-npu":  # the others have waited for rank 1
        assert f"ranks 0, 2: no way to its HCCL windows. {way}: Hccl" in line


def test_a_provider_missing_on_all_ranks():
    cases = [f"no_{way}" for way in WAYS[:2]]
    found = told("store", *cases, ASCEND_MOE_VNPU_HIDE="kfc,tiling")
    for case, way in zip(cases, WAYS, strict=False):
        assert found.right(case)
        why = f"no way to its HCCL windows. {way}: CANN has no "
        assert found.choices[case].startswith(f"stock (all ranks: {why}")


def test_a_cann_in_which_ranks_cannot_be_asked():
    """Without a function that finds the communicator there are no windows either, on any rank: stock."""
    found = told("hccl", "no_kfc", ASCEND_MOE_VNPU_HIDE="kfc,tiling")
    assert found.right("no_kfc")
    why = "the ranks cannot be asked: CANN has no HcomGetCommHandleByGroup"
    assert found.choices["no_kfc"].startswith(f"stock ({why}")


@BOTH
@pytest.mark.parametrize("case", ["all_well", "required_everywhere"])
def test_all_well(how, case):
    found = told(how, *TOGETHER)
    assert found.right(case)
    assert found.choices[case].startswith("ours (")


@BOTH
def test_off_on_one_rank(how):
    """It takes part, so nobody waits; who requires ours gets an error on all ranks, at once."""
    found = told(how, *TOGETHER)
    assert found.right("off")
    assert found.choices["off"] == "stock (rank 1: ASCEND_MOE_KERNELS=off; libopapi.so)"
    for rank in RANKS:
        text = found.texts["off_but_required", rank]
        assert "ASCEND_MOE_KERNELS=require (ranks 0, 2)" in text
        assert "our kernels cannot serve group_ep" in text
        assert "rank 1: ASCEND_MOE_KERNELS=off" in text


def test_off_on_one_rank_with_tp(run):
    """Both EP groups learn of it, one of them through a TP pair, and so do all ranks of both."""
    said = run("golden_cases.py", 4, 2, "A3", 1).stdout
    assert "golden cases equal on 4 ranks (A3, tp 2)" in said
    choices = re.findall(r"kernels=(.*)", said)
    assert sorted(choices) == [
        "stock (rank 0: ASCEND_MOE_KERNELS=off; libopapi.so)",
        "stock (rank 0: in its TP pair rank 1: ASCEND_MOE_KERNELS=off; libopapi.so)",
    ]


@BOTH
def test_a_call_that_fails_on_one_rank_fails_on_all(how):
    texts = told(how, *TOGETHER).texts
    why = "ASCEND_MOE_KERNELS=maybe, allowed: off, auto, require"
    assert f"npu_moe_distribute_dispatch_v2: {why}" in texts["unknown_value", 1]
    for rank in (0, 2):
        assert f"cannot be opened; rank 1: {why}" in texts["unknown_value", rank]


def test_a_rank_that_does_not_call_is_named():
    """With the store the ranks meet for their arguments first, and miss it there."""
    for rank in (0, 2):
        text = told("store", *TOGETHER).texts["absent", rank]
        assert "rank 1 did not arrive at its first call within 6 s" in text
        text = told("hccl", *TOGETHER).texts["absent", rank]
        assert re.search(r"no word from ranks( \d,)* 1\b.* within 6 s .*HcclAllGather", text)


def test_ranks_that_call_in_different_ways_are_named():
    texts = told("store", *TOGETHER).texts
    assert "no word from ranks 0, 2 within 6 s" in texts["other_way", 1]
    for rank in (0, 2):
        assert "rank 1 did not arrive" in texts["other_way", rank]


def test_a_rank_without_the_library():
    """Its Python says so, so that all run stock; where it has none of ours, the others name it within the limit."""
    patient = {"HCCL_CONNECT_TIMEOUT": "100"}  # that rank is started afresh
    found = told("store", "no_library", "other_version", "no_library_but_required", **patient)
    none = "rank 1: its process has no library of ascend_moe (ascend-moe env)"
    assert found.right("no_library")
    assert found.choices["no_library"] == f"stock ({none}; libopapi.so)"
    assert found.right("other_version")
    versions = "ranks 0, 2: library version 4; rank 1: library version 0"
    assert found.choices["other_version"] == f"stock ({versions}; libopapi.so)"
    for rank in (0, 2):
        assert none in found.texts["no_library_but_required", rank]
    found = told("hccl", "no_library", **patient)
    for rank in (0, 2):
        text = found.texts["no_library", rank]
        assert re.search(r"no word from ranks( \d,)* 1\b.* within 6 s", text)
        assert "does not find the library of ascend_moe" in text
