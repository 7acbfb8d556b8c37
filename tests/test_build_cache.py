"""The cache that libraries are loaded from is this user's alone, and a build in it ends, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ascend_moe import native
from ascend_moe.cli import main
from ascend_moe.hardware import error_record, kernel_library
from ascend_moe.native import BuildError
from ascend_moe.vnpu import build

SOMEBODY = 12345


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return native.cache_directory()


def test_directories_are_for_this_user_alone(cache: Path):
    native.make_own(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o755)  # as older versions left it
    native.make_own(cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    native.replace_directory(cache / "part", _made)
    assert (cache / "part").stat().st_mode & 0o777 == 0o700


def _made(scratch: Path) -> Path:
    installed = scratch / "installed"
    installed.mkdir(mode=0o755)
    (installed / "library").touch()
    return installed


def _is_a_link(directory: Path) -> None:
    real = directory.with_name("elsewhere")
    real.mkdir()
    directory.symlink_to(real)


def _belongs_to_another(directory: Path) -> None:
    directory.mkdir()
    os.chown(directory, SOMEBODY, -1)


def _can_be_written(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o770)


def _can_be_replaced(directory: Path) -> None:
    directory.mkdir()
    directory.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_is_a_link, "is a symbolic link"),
        pytest.param(
            _belongs_to_another,
            f"belongs to user {SOMEBODY}, this is user",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
        (_can_be_written, r"can be written by others \(mode 770\)"),
        (_can_be_replaced, r"can be (replaced by anybody|written by others)"),
        (Path.touch, "is a file"),
    ],
)
@pytest.mark.parametrize("which", ["cache", "part"])
def test_what_others_may_have_put_there_is_not_loaded(cache: Path, make, said: str, which: str):
    """Neither a part of the virtual NPU nor the kernels for an NPU."""
    target = kernel_library.installation()
    assert target.parent == cache
    if which == "cache":
        make(cache)
    else:
        native.make_own(cache)
        make(target)
    if target.parent.is_dir() and (target.is_dir() or which == "cache"):
        library = target / kernel_library.VENDOR / kernel_library.LIBRARY
        library.parent.mkdir(parents=True)
        library.touch()
        with pytest.raises(BuildError, match=said):
            kernel_library.installed_vendor()
    with pytest.raises(BuildError, match=said) as found:
        build._part(None, "standin", target, None)
    assert "\n" not in str(found.value)
    assert "set XDG_CACHE_HOME" in str(found.value)


def test_env_says_why_it_names_no_library(cache: Path, capsys: pytest.CaptureFixture[str]):
    library = kernel_library.installation() / kernel_library.VENDOR / kernel_library.LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    cache.chmod(0o777)
    assert main(["env"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "can be written by others" in printed.err


@pytest.mark.parametrize("home", ["not/absolute", None])
def test_no_home(home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One line where something would be built, and silence where only records would be read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.setattr(native.Path, "home", _no_such_user)
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(BuildError, match="set HOME or XDG_CACHE_HOME"):
        native.cache_directory()
    assert error_record.recent_records() == []
    assert error_record.forget() == 0
    assert kernel_library.built_from() == {}
    assert main(["env"]) == 1
    assert main(["doctor", "--markdown"]) in (0, 1)
    assert list(tmp_path.iterdir()) == []


def _no_such_user() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nobody")
    with pytest.raises(BuildError, match=r"no cache: /proc/nobody/.cache/ascend-moe: No such file"):
        native.make_own(native.cache_directory())


# --- locks --------------------------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from ascend_moe import native
with native.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _holder(path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDS, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_not_waited_for_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Also when its holder is stopped, who is named; and a holder that is killed holds nothing."""
    lock = tmp_path / "part.lock"
    holder = _holder(lock, 60)
    try:
        holder.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(native, "LIMIT_S", 0.4)
        monkeypatch.setattr(native, "_SAY_AFTER_S", 0.1)
        with (
            pytest.raises(BuildError, match=rf"process {holder.pid} on \S+ has held the lock"),
            native.locked(lock),
        ):
            pass
        assert f"waiting for process {holder.pid}" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
    with native.locked(lock):
        assert lock.read_text().startswith(f"process {os.getpid()} on")
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_lock_is_neither_followed_nor_truncated(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    link = tmp_path / "part.lock"
    link.symlink_to(precious)
    with pytest.raises(BuildError, match="cannot be opened"), native.locked(link):
        pass
    assert precious.read_text() == "do not touch"


# --- builds -------------------------------------------------------------------------------------------------------


def test_half_made_builds_are_cleared(tmp_path: Path):
    """Of processes that were killed; those of other parts stay: somebody may be building them."""
    half, other = tmp_path / "building-part-x1", tmp_path / "building-other-x1"
    for folder in (half, other):
        (folder / "build").mkdir(parents=True)
    native.replace_directory(tmp_path / "part", _made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["building-other-x1", "part"]
    with pytest.raises(BuildError, match="failed"):
        native.replace_directory(tmp_path / "part", _fails)
    assert (tmp_path / "part/library").is_file()
    assert not half.exists()


def _fails(scratch: Path) -> Path:
    (scratch / "installed").mkdir()
    raise BuildError("failed")


def _tool(tmp_path: Path, script: str) -> str:
    path = tmp_path / "tool"
    path.write_text(script)
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\nprintf '\\377\\376 no'\nexit 1\n", "this command failed, see above"),
        ("#!/nowhere\n", "does not run"),
        ("\0\0", "does not run"),
    ],
)
def test_odd_tools(tmp_path: Path, script: str, said: str, capfd: pytest.CaptureFixture[str]):
    tool = _tool(tmp_path, script)
    with pytest.raises(BuildError, match=said):
        native.run_build([tool])
    with pytest.raises(BuildError, match="does not run"):
        native.output_of([tool, "--version"])
    assert ("no" in capfd.readouterr().err) == (said != "does not run")


def test_a_version_that_is_no_text(tmp_path: Path):
    assert native.output_of([_tool(tmp_path, "#!/bin/sh\nprintf '\\377'\n")]) == b"\xff"


def test_a_command_that_hangs_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(native, "LIMIT_S", 0.5)
    noted = tmp_path / "child"
    tool = _tool(tmp_path, f"#!/bin/sh\nsleep 60 &\necho $! > {noted}\nwait\n")
    with pytest.raises(BuildError, match=r"did not end within 0\.5 s"):
        native.run_build([tool])
    child = Path(f"/proc/{noted.read_text().strip()}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the child of the command is still there")
