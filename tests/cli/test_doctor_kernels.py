"""What doctor says about the kernel library, running processes and ranks that did not come."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from ascend_moe.cli import doctor, doctor_kernels, main
from ascend_moe.hardware import error_record, lookup, process
from ascend_moe.hardware.kernel_library import BUILT, LIBRARY, VENDOR, installation, source_key
from ascend_moe.hardware.loading import load_failure
from ascend_moe.hardware.lookup import Candidate

ALL = {2, 3, 4}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """An empty cache and environment, a torch_npu that asks for V4, and libraries that export V2 to V4."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (*doctor.VARIABLES, "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "ASCEND_MOE_VNPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        lookup, "generations_of_torch_npu", lambda: {"dispatch": ALL, "combine": ALL}
    )
    monkeypatch.setattr(Candidate, "generations", lambda self, operator: ALL)
    monkeypatch.setattr(doctor_kernels, "load_failure", lambda library, env: "")


@pytest.fixture
def vendor():
    library = installation() / VENDOR / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    (installation() / BUILT).write_text(json.dumps({"sources": source_key(), "cann": "9.0.0"}))
    return installation() / VENDOR


def problems(capsys, *words: str) -> list[str]:
    main(["doctor", *words, "--json"])
    return [problem["text"] for problem in json.loads(capsys.readouterr().out)["problems"]]


def test_ours_on_the_path(capsys, monkeypatch, vendor):
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(vendor))
    monkeypatch.setenv("ASCEND_MOE_KERNELS", "require")
    assert problems(capsys) == []
    main(["doctor"])
    text = " ".join(capsys.readouterr().out.split())
    for operator in lookup.OPERATORS:
        assert f"{operator} V4 of {vendor / LIBRARY} (ours)" in text


def test_installed_but_not_on_the_path(capsys, monkeypatch, vendor):
    assert problems(capsys) == []
    main(["doctor"])
    assert "installed but not on" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("ASCEND_MOE_KERNELS", "require")
    (text,) = problems(capsys)
    assert text.startswith("ASCEND_MOE_KERNELS=require")


def test_another_library_comes_first(capsys, monkeypatch, tmp_path, vendor):
    other = tmp_path / "vendors/other" / LIBRARY
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", f"{other.parents[2]}:{vendor}")
    found = problems(capsys)
    assert len(found) == 2
    assert all("it comes before ours" in text for text in found)


def test_an_empty_entry_comes_first(capsys, monkeypatch, tmp_path, vendor):
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", f"{tmp_path}:{vendor}")
    (text,) = problems(capsys)
    assert text.startswith(f"{tmp_path} has no")


def test_a_newer_generation(capsys, monkeypatch, tmp_path, vendor):
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64/libopapi.so").touch()
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(vendor))
    monkeypatch.setattr(
        lookup, "generations_of_torch_npu", lambda: {"dispatch": {*ALL, 5}, "combine": ALL}
    )
    monkeypatch.setattr(
        Candidate, "generations", lambda self, operator: ALL if self.ours else {*ALL, 5}
    )
    first, second = problems(capsys)
    assert "asks for V5 first and ours ends at V4" in first
    assert "different libraries" in second


def test_another_owner(capsys, monkeypatch, vendor):
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(vendor))
    monkeypatch.setattr(lookup, "_skipped", lambda owner, user: "it belongs to user 7")
    (text,) = problems(capsys)
    assert "is skipped by torch_npu: it belongs to user 7" in text


def test_built_from_other_sources_or_another_cann(capsys, monkeypatch, tmp_path, vendor):
    (installation() / BUILT).write_text(json.dumps({"sources": "old", "cann": "8.5.0"}))
    version = tmp_path / "cann/compiler/version.info"
    version.parent.mkdir(parents=True)
    version.write_text("Version=9.0.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "cann"))
    first, second = problems(capsys)
    assert "built from other sources" in first
    assert "built with CANN 8.5.0, here is 9.0.0" in second


def test_the_stand_in_is_not_shown_as_cann(capsys, monkeypatch, tmp_path):
    version = tmp_path / "compiler/version.info"
    version.parent.mkdir()
    version.write_text("Version=9.0.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setenv("ASCEND_MOE_VNPU", str(tmp_path))
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["virtual_npu"], found["cann"], found["cann_home"]) == (True, None, None)
    main(["doctor"])
    assert "CANN none: this is the virtual NPU" in " ".join(capsys.readouterr().out.split())


def test_a_library_that_cannot_be_loaded(capsys, monkeypatch, vendor):
    """The file of the fixture is empty. It is tried whether it is on the path or not, and once."""
    monkeypatch.setattr(doctor_kernels, "load_failure", load_failure)
    for path in ("", str(vendor)):
        monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", path)
        (text,) = problems(capsys)
        assert text.startswith(f"{vendor / LIBRARY} cannot be loaded, and torch_npu then takes")
        assert "file too short" in text
    monkeypatch.setattr(lookup, "_skipped", lambda owner, user: "it belongs to user 7")
    monkeypatch.setattr(doctor_kernels.kernel_library, "installed_vendor", lambda: None)
    (text,) = problems(capsys)
    assert "is skipped" in text  # and what belongs to somebody else is not loaded


def proc(monkeypatch, tmp_path: Path, pid: int, opp_path: str, *libraries: str) -> None:
    """A process as /proc shows it."""
    folder = tmp_path / "proc" / str(pid)
    folder.mkdir(parents=True)
    variable = f"ASCEND_CUSTOM_OPP_PATH={opp_path}\0" if opp_path else ""
    (folder / "environ").write_text(f"HOME=/root\0{variable}PATH=/bin\0")
    maps = [f"7f00-7f10 r-xp 0000 fd:00 123   {library}\n" for library in libraries]
    (folder / "maps").write_text("7f20-7f30 rw-p 0000 00:00 0\n" + "".join(maps))
    monkeypatch.setattr(process, "PROC", tmp_path / "proc")


TORCH_NPU = "/x/torch_npu/lib/libtorch_npu.so"


def test_the_variable_came_too_late(capsys, monkeypatch, tmp_path, vendor):
    proc(monkeypatch, tmp_path, os.getpid(), "", TORCH_NPU)
    assert problems(capsys) == []
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(vendor))
    (text,) = problems(capsys)
    assert "has changed since this process started" in text


@pytest.mark.parametrize(
    ("opp_path", "loaded", "expected"),
    [
        ("", [TORCH_NPU], ["process 77 was started without our kernels"]),
        ("/other", [TORCH_NPU, "/other/op_api/lib/libcust_opapi.so"], ["process 77 was started"]),
        ("/cache/vendors/ascend_moe", [TORCH_NPU], []),
        ("", [TORCH_NPU, "/cache/vendors/ascend_moe/op_api/lib/libcust_opapi.so"], []),
        ("", ["/lib/libc.so"], []),
    ],
)
def test_another_process(capsys, monkeypatch, tmp_path, opp_path, loaded, expected):
    proc(monkeypatch, tmp_path, os.getpid(), "")
    proc(monkeypatch, tmp_path, 77, opp_path, *loaded)
    found = problems(capsys, "--pid", "77")
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_this_very_process_can_be_read():
    found = process.look_at(os.getpid())
    assert found.custom == ()
    assert found.torch_npu is ("torch_npu" in sys.modules)


def test_no_such_process(capsys):
    assert main(["doctor", "--pid", "999999999"]) == 2
    assert "no process 999999999" in capsys.readouterr().err


def test_a_rank_that_did_not_come(capsys, monkeypatch):
    cache = os.environ["XDG_CACHE_HOME"]
    record = {
        "time": time.time(),
        "pid": 41,
        "group": "ep0",
        "ep_rank": 0,
        "op": "combine",
        "missing_rank": 3,
        "waited_s": 120,
        "virtual_npu": False,
    }
    error_record.folder().mkdir(parents=True)
    (error_record.folder() / "41-0.json").write_text(json.dumps(record))
    old = {**record, "time": 0}
    (error_record.folder() / "41-1.json").write_text(json.dumps(old))
    (error_record.folder() / "41-2.json").write_text("{")
    monkeypatch.setattr(error_record.os, "getuid", lambda: os.geteuid() + 1)
    assert problems(capsys) == []  # another user's, in a cache directory that is shared
    assert problems(capsys, "--forget") == []
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    (text,) = problems(capsys)
    assert "combine on rank 0 of group ep0 gave up after 120 s; rank 3 did not come" in text
    assert problems(capsys, "--forget") == []
    assert list(error_record.folder().iterdir()) == []
