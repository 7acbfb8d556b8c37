"""The native steps by themselves: clean under the sanitizers, equal to torch on odd values, built like a user would."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_moe.cpu.windows import engine
from ascend_moe.native import find_tool

HERE = Path(__file__).resolve().parent
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
needs_compiler = pytest.mark.skipif(find_tool("g++") is None, reason="no g++ here")


@needs_compiler
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_ranks_as_threads_under_a_sanitizer(sanitizer: str, tmp_path: Path):
    """Random orders of both operators on four ranks; every result is checked, every access watched."""
    program = tmp_path / "threads"
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    source = HERE / "native" / "threads.cpp"
    command = ["g++", *flags, *SANITIZERS[sanitizer], str(source), "-o", str(program), "-pthread"]
    subprocess.run(command, check=True, timeout=120)
    done = subprocess.run(
        [program, "4", "3000", "7"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "ok\n"


@needs_compiler
def test_memory_of_outputs_under_a_sanitizer(tmp_path: Path):
    program = tmp_path / "outputs"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", *SANITIZERS["address"]]
    command = ["g++", *flags, str(HERE / "native" / "outputs.cpp"), "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "ok\n"


@needs_compiler
def test_it_is_built_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "g++")
    engine.native.cache_clear()
    try:
        assert engine.native() is not None
        (library,) = tmp_path.rglob("windows.so")
        built = library.stat().st_mtime_ns
        engine.native.cache_clear()
        assert engine.native() is not None
        assert library.stat().st_mtime_ns == built
    finally:
        engine.native.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "told"),
    [("none", "no C++ compiler"), ("false", "cannot share memory: ")],
)
def test_without_a_compiler_it_is_said_once(
    compiler: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine.native.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="ascend_moe"):
            assert engine.native() is None
            assert engine.native() is None
    finally:
        engine.native.cache_clear()
    assert [told in record.message for record in caplog.records] == [True]


def test_importing_the_package_builds_nothing(tmp_path: Path):
    code = "import ascend_moe; ascend_moe.register()"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=100)
    assert list(tmp_path.iterdir()) == []
