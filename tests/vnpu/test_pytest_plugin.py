"""``pytest --virtual-npu`` in a project of its own: the restart, worlds of ranks, the marker, nothing without it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from vnpu_launch import REPOSITORY, clean_environment, require_virtual_npu

WORLDS = """
import os
import pytest
import helper_beside_the_test

def add(rank, tensor):
    import torch.distributed as dist
    total = (tensor + rank).npu()
    dist.all_reduce(total)
    return {"sum": total, "helper": helper_beside_the_test.NAME, "process": os.getpid()}

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

def misbehave(rank, how):
    if rank == 1:
        if how == "die":
            os._exit(3)
        if how == "sleep":
            import time
            time.sleep(60)
        raise {"mine": LookupError("mine"), "odd": Odd(1, 2)}[how]
    return os.environ["ASCEND_MOE_PRODUCT"]

def test_values_by_rank(npu_world):
    import torch
    for number in (0.5, 1.5):  # the ranks stay
        outcomes = npu_world(2)(add, torch.full((2,), number, dtype=torch.bfloat16))
        for outcome in outcomes:
            assert torch.equal(outcome.value["sum"], torch.full((2,), 2 * number + 1, dtype=torch.bfloat16))
            assert outcome.value["helper"] == "found" and outcome.error is None
        processes = [outcome.value["process"] for outcome in outcomes]
        assert len({*processes, os.getpid()}) == 3
        assert number == 0.5 or processes == before
        before = processes

def test_errors_by_rank(npu_world):
    right, wrong = npu_world(2)(misbehave, "mine")
    assert right.value == "A3" and right.error is None
    assert isinstance(wrong.error, LookupError) and "misbehave" in str(wrong.error.__cause__)
    with pytest.raises(LookupError, match="mine"):
        wrong.value
    right, wrong = npu_world(2)(misbehave, "odd")
    assert str(wrong.error) == "Odd: 1 and 2"

@pytest.mark.virtual_npu(product="A2", devices=20)
def test_another_product_and_no_answer(npu_world):
    with pytest.raises(ValueError, match="there are 20 devices"):
        npu_world(21)(misbehave, "mine")
    with pytest.raises(TypeError, match="top of a module"):
        npu_world(2)(lambda rank: None)
    right, late = npu_world(2)(misbehave, "sleep", timeout=2)
    assert right.value == "A2" and "rank 1 did not answer within 2 s" in str(late.error)
    right, dead = npu_world(2)(misbehave, "die")
    assert right.value == "A2" and "rank 1 ended" in str(dead.error)

def test_unseen_error(npu_world):
    npu_world(2)(misbehave, "mine")
"""
MARKED = """
import os
import pytest

@pytest.mark.virtual_npu
def test_here():
    assert os.environ["ASCEND_MOE_PRODUCT"] + os.environ["ASCEND_MOE_VNPU_DEVICES"] == "A316"
    import torch, torch_npu
    assert torch.ones(2).npu().sum().item() == 2

@pytest.mark.virtual_npu(product="A2")
def test_elsewhere():
    assert False

@pytest.mark.virtual_npu("A3", 17)
def test_many():
    assert False

@pytest.mark.virtual_npu(devices=8, servers=2)
def test_split():
    assert False

def servers(rank):
    return os.environ["ASCEND_MOE_VNPU_DEVICES"] + " " + os.environ["ASCEND_MOE_VNPU_SERVERS"]

@pytest.mark.virtual_npu(product="A2", devices=4, servers=2)
def test_world(npu_world):
    assert [outcome.value for outcome in npu_world(4)(servers)] == ["4 2"] * 4
    with pytest.raises(ValueError, match="there are 4 devices"):
        npu_world(5)(servers)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "helper_beside_the_test.py").write_text("NAME = 'found'\n")
    (folder / "test_worlds.py").write_text(WORLDS)
    (folder / "test_marked.py").write_text(MARKED)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


def run(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # -p: also where the entry point of an installed package is missing or is another's
    command = [sys.executable, "-m", "pytest", "-p", "ascend_moe_pytest", "-p", "no:cacheprovider"]
    kept = {k: v for k, v in clean_environment().items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *words],
        cwd=project,
        env=kept | {"PYTHONPATH": str(REPOSITORY)} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_loading_it_imports_nothing_heavy():
    code = (
        "import pytest, sys; before = set(sys.modules); import ascend_moe_pytest\n"
        "print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ascend_moe_pytest']"


def test_without_the_option_tests_are_skipped_with_the_reason(project):
    done = run(project, "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 skipped" in done.stdout
    assert done.stdout.count("needs the virtual NPU: pytest --virtual-npu") >= 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("A5", "product 'A5' is not one of A2, A3"),
        ("A3:0", "0 devices: between 1 and 1024 are possible"),
        ("A3:x", "not PRODUCT, PRODUCT:DEVICES or PRODUCT:DEVICES:SERVERS"),
        ("A3:8:2:1", "not PRODUCT, PRODUCT:DEVICES or PRODUCT:DEVICES:SERVERS"),
        ("A2:16:1", "1 servers: 16 devices on 1 are 16 each, a server of A2 has 8"),
    ],
)
def test_a_wish_that_cannot_be(project, value, said):
    done = run(project, f"--virtual-npu={value}")
    assert done.returncode == 4
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_calls_pytest_is_not_restarted(project):
    program = (
        "import pytest, sys; sys.exit(pytest.main(['-p', 'ascend_moe_pytest', '--virtual-npu']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert "ascend-moe run PROGRAM" in done.stderr


def test_restarted_once_also_with_workers(project):
    """The word after the option is a path; workers of xdist are below the restarted process."""
    require_virtual_npu()
    done = run(project, "--virtual-npu", "tests", "-n", "2", "--dist", "loadfile", "-rsA")
    printed = done.stdout + done.stderr
    assert done.stderr.count("ascend-moe: virtual NPU (A3, 16 devices)") == 1, printed
    assert re.search(r"6 passed, 3 skipped, (\d+ warnings, )?1 error", done.stdout), printed
    assert "needs pytest --virtual-npu=A3:8:2, this is A3:16" in done.stdout
    assert "the test did not look at the error of rank 1" in done.stdout
    assert "needs pytest --virtual-npu=A2:16, this is A3:16" in done.stdout
    assert "needs pytest --virtual-npu=A3:17, this is A3:16" in done.stdout
