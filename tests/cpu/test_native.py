"""The library by itself: clean under the sanitizers, refused when of other sources, never built at run time."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ascend_moe.cpu.windows import build, engine

TESTS = Path(__file__).resolve().parent / "native"
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREAD = ["-fsanitize=thread"]


def run(compiler: str, sanitizer: list[str], sources: list[Path], *words: str, into: Path) -> None:
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, *sanitizer, "-DMOE_SOURCES=0", *sources, "-o", into, "-pthread"]
    subprocess.run(command, check=True, timeout=200)
    done = subprocess.run([into, *words], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "ok\n"


@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=["address", "thread"])
def test_ranks_as_threads_under_a_sanitizer(compiler: str, sanitizer: list[str], tmp_path: Path):
    """Random orders of both operators on four ranks; every result is checked, every access watched."""
    sources = [TESTS / "threads.cpp", build.SOURCES / "windows.cpp"]
    run(compiler, sanitizer, sources, "4", "1500", "7", into=tmp_path / "threads")


def test_messages_that_lie_under_a_sanitizer(compiler: str, tmp_path: Path):
    """Ranks without shared memory: right without lies, and with them errors at most."""
    sources = [TESTS / "far.cpp", build.SOURCES / "windows.cpp"]
    run(compiler, ADDRESS, sources, "3", "1500", "7", into=tmp_path / "far")


def test_memory_of_outputs_under_a_sanitizer(compiler: str, tmp_path: Path):
    run(compiler, ADDRESS, [TESTS / "outputs.cpp"], into=tmp_path / "outputs")


@pytest.fixture
def fresh() -> Iterator[None]:
    engine.native.cache_clear()
    yield
    engine.native.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_the_library_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(build, "LIBRARY", tmp_path / build.LIBRARY.name)
    with caplog.at_level(logging.WARNING, logger="ascend_moe"):
        assert engine.native() is None
        assert engine.native() is None
    assert ["was not built" in record.message for record in caplog.records] == [True]


@pytest.mark.usefixtures("fresh")
def test_a_library_of_other_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A clone that was updated and not installed again."""
    shutil.copytree(build.SOURCES, tmp_path / "native")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "native")
    assert engine.native() is not None
    with (tmp_path / "native/protocol.h").open("a") as file:
        file.write("// changed\n")
    with pytest.raises(OSError, match="other sources"):
        engine.load(build.LIBRARY)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("source", ["", "int another;"])
def test_what_is_no_library_of_ours_is_not_used(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(build, "LIBRARY", tmp_path / build.LIBRARY.name)
    command = ["g++", "-shared", "-x", "c++", "-", "-o", str(build.LIBRARY)]
    if source:
        subprocess.run(command, input=source, text=True, check=True)
    else:
        build.LIBRARY.write_bytes(b"compiled: 0 errors\n")
    with caplog.at_level(logging.WARNING, logger="ascend_moe"):
        assert engine.native() is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("compiler", ["/nowhere/g++", "false", "true"])
def test_without_a_compiler_the_package_is_installed_without_the_library(
    compiler: str, tmp_path: Path
):
    root = Path(__file__).parents[2]
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path / "lib"]
    done = subprocess.run(
        [*command, "--build-temp", tmp_path / "temp"],
        cwd=root,
        env=os.environ | {"CXX": compiler},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "building extension" in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_nothing_is_built_at_run_time(tmp_path: Path):
    code = "import ascend_moe; ascend_moe.register(); from ascend_moe.cpu.windows import engine; engine.native()"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=100)
    assert list(tmp_path.iterdir()) == []
