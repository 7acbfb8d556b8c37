"""Which library torch_npu takes, against libraries that were made for the purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ascend_moe.hardware import elf, kernel_library, lookup
from ascend_moe.hardware.kernel_library import LIBRARY

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
KNOWN = {"dispatch": {2, 3, 4}, "combine": {2, 3, 4}}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(lookup, "generations_of_torch_npu", lambda: KNOWN)


def library(path: Path, *names: str) -> Path:
    """A library that exports both phases of these names, such as DispatchV4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stems = [f"aclnnMoeDistribute{name}" for name in names]
    functions = [stem + phase for stem in stems for phase in ("", "GetWorkspaceSize")]
    text = "".join(f'extern "C" int {function}() {{ return 0; }}\n' for function in functions)
    source = path.with_suffix(".cpp")
    source.write_text(text + "extern int missing(); static int hidden() { return missing(); }")
    subprocess.run(["g++", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


BOTH = [f"{operator}V{number}" for operator in ("Dispatch", "Combine") for number in (2, 3, 4)]


def test_exports_are_those_that_nm_shows(tmp_path):
    path = library(tmp_path / "lib.so", "DispatchV2")
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1].split("@")[0] for line in shown.stdout.splitlines()}
    assert elf.exported_names(path) == names
    assert "aclnnMoeDistributeDispatchV2" in names


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF\x02\x01" + bytes(70)])
def test_other_files(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    if content[:6] == elf.MAGIC:
        assert elf.exported_names(path) == frozenset()
    else:
        with pytest.raises(ValueError, match="ELF"):
            elf.exported_names(path)


def test_a_cut_library_is_damaged(tmp_path):
    path = library(tmp_path / "lib.so", "DispatchV2")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        elf.exported_names(path)


def chosen(env):
    return {
        choice.operator: (choice.generation, choice.library.path) for choice in lookup.choices(env)
    }


def test_order_of_the_search(tmp_path):
    """Custom path, then vendors by priority, then CANN; in each the newest generation of all comes first."""
    ours = library(tmp_path / "vendors/ascend_moe" / LIBRARY, *BOTH)
    other = library(tmp_path / "opp/vendors/b" / LIBRARY, *BOTH)
    library(tmp_path / "opp/vendors/a" / LIBRARY, *BOTH)
    (tmp_path / "opp/vendors/config.ini").write_text("x=1\nload_priority=b,a\n")
    cann = library(tmp_path / "cann/lib64/libopapi.so", *BOTH)
    env = {"ASCEND_HOME_PATH": str(tmp_path / "cann")}
    assert chosen(env) == {"dispatch": (4, cann), "combine": (4, cann)}
    env["ASCEND_OPP_PATH"] = str(tmp_path / "opp")
    assert chosen(env) == {"dispatch": (4, other), "combine": (4, other)}
    env["ASCEND_CUSTOM_OPP_PATH"] = f"{tmp_path}/nothing:{ours.parents[2]}"
    assert chosen(env) == {"dispatch": (4, ours), "combine": (4, ours)}
    assert all(choice.library.ours for choice in lookup.choices(env))


def test_a_copy_of_ours_is_known_by_its_mark(tmp_path):
    path = library(tmp_path / "vendors/packed" / LIBRARY, *BOTH)
    env = {"ASCEND_CUSTOM_OPP_PATH": str(path.parents[2])}
    assert not lookup.candidates(env)[0].ours
    with path.with_suffix(".cpp").open("a") as source:
        source.write(f'extern "C" int {kernel_library.MARK}() {{ return 1; }}')
    subprocess.run(["g++", "-shared", "-fPIC", "-o", path, path.with_suffix(".cpp")], check=True)
    lookup._exports.cache_clear()
    assert lookup.candidates(env)[0].ours


def test_a_newer_generation_bypasses_ours(tmp_path, monkeypatch):
    ours = library(tmp_path / "vendors/ascend_moe" / LIBRARY, *BOTH)
    cann = library(tmp_path / "cann/lib64/libopapi.so", *BOTH, "DispatchV5")
    env = {
        "ASCEND_HOME_PATH": str(tmp_path / "cann"),
        "ASCEND_CUSTOM_OPP_PATH": str(ours.parents[2]),
    }
    assert chosen(env)["dispatch"] == (4, ours)
    monkeypatch.setattr(
        lookup, "generations_of_torch_npu", lambda: {**KNOWN, "dispatch": {2, 3, 4, 5}}
    )
    assert chosen(env) == {"dispatch": (5, cann), "combine": (4, ours)}


@pytest.mark.parametrize(
    ("owner", "user", "taken"),
    [(0, 0, True), (0, 1000, True), (1000, 1000, True), (1000, 0, False), (1001, 1000, False)],
)
def test_owner(owner, user, taken):
    assert (lookup._skipped(owner, user) == "") is taken


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_library_of_another_owner_is_skipped(tmp_path):
    ours = library(tmp_path / "vendors/ascend_moe" / LIBRARY, *BOTH)
    os.chown(ours, 1234, -1)
    env = {"ASCEND_CUSTOM_OPP_PATH": str(ours.parents[2])}
    assert lookup.choices(env) == []
    assert "1234" in lookup.candidates(env)[0].skipped
