"""``ascend-moe env``, with and without an installed library."""

from __future__ import annotations

import subprocess

import pytest

from ascend_moe.cli import main
from ascend_moe.hardware.kernel_library import LIBRARY, VENDOR, installation


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "the cache"))
    for name in ("ASCEND_CUSTOM_OPP_PATH", "ASCEND_MOE_VNPU"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def vendor():
    library = installation() / VENDOR / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    return installation() / VENDOR


def test_no_library_is_one_clear_line(capsys):
    assert main(["env"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "not built here" in line
    assert "python -m ascend_moe.hardware.build" in line


def test_exports_survive_a_shell_and_do_not_pile_up(capsys, monkeypatch, vendor):
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", f"/a:{vendor}:/b")
    assert main(["env"]) == 0
    lines = capsys.readouterr().out
    shell = ["bash", "-c", f'{lines}\nprintf %s "$ASCEND_CUSTOM_OPP_PATH"']
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout == f"{vendor}:/a:/b"


def test_on_the_virtual_npu_there_is_nothing_to_export(capsys, monkeypatch, vendor):
    monkeypatch.setenv("ASCEND_MOE_VNPU", "/home/of/the/stand-in")
    assert main(["env"]) == 1
    assert "virtual NPU" in capsys.readouterr().err
