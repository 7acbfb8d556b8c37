"""The wheels of a release, built as the release builds them, and one of them installed where nothing else is."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import struct
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "ascend_moe/cpu/windows/libascend_moe_cpu.so"
MACHINES = {"x86_64": 62, "aarch64": 183}
"""As ELF numbers them."""
OF_AARCH64 = Path("/usr/aarch64-linux-gnu")

pytestmark = pytest.mark.ci


@pytest.fixture(autouse=True, scope="module")
def _may_take_minutes() -> None:
    """Each command here has a time limit of its own; that of pyproject.toml is for tests that hang."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([ROOT / "scripts/build_wheels", folder], check=True, timeout=1500)
    return folder


def wheel_for(dist: Path, machine: str) -> Path:
    (wheel,) = dist.glob(f"*-py3-none-manylinux_2_28_{machine}.whl")
    return wheel


def library_of(dist: Path, machine: str, folder: Path) -> Path:
    with zipfile.ZipFile(wheel_for(dist, machine)) as archive:
        return Path(archive.extract(LIBRARY, folder))


@pytest.mark.parametrize("machine", MACHINES)
def test_auditwheel_finds_nothing_newer_than_glibc_2_28(dist: Path, machine: str):
    command = [sys.executable, "-m", "auditwheel", "show", wheel_for(dist, machine)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(
        rf"consistent\s+with\s+the\s+following\s+platform\s+tag:\s+"
        rf'"manylinux_(\d+)_(\d+)_{machine}"',
        said,
    )
    assert found, said
    assert tuple(map(int, found.groups())) <= (2, 28), said


@pytest.mark.parametrize("machine", MACHINES)
def test_the_library_is_for_its_machine(dist: Path, machine: str, tmp_path: Path):
    library = library_of(dist, machine, tmp_path).read_bytes()
    assert library[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", library, 18) == (MACHINES[machine],)


def test_the_library_for_aarch64_works_in_qemu(dist: Path, tmp_path: Path):
    """The very file of the wheel, under the program of ``tests/cpu/test_native.py``. Not aarch64's memory order."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None or not OF_AARCH64.is_dir():
        pytest.skip(
            "qemu-aarch64 or its libraries are not here: apt-get install qemu-user libc6-arm64-cross"
        )
    library, program = library_of(dist, "aarch64", tmp_path), tmp_path / "threads"
    source = ROOT / "tests/cpu/native/threads.cpp"
    flags = ["-target", "aarch64-linux-gnu.2.28", "-std=c++17", "-O1", "-Wl,--export-dynamic"]
    command = [sys.executable, "-m", "ziglang", "c++", *flags, source, library, "-o", program]
    subprocess.run(command, check=True, timeout=600)
    environment = os.environ | {"QEMU_LD_PREFIX": str(OF_AARCH64)}
    environment["QEMU_SET_ENV"] = f"LD_LIBRARY_PATH={library.parent}"
    done = subprocess.run(
        [qemu, program, "4", "300", "7"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]


def test_installed_alone_it_shares_memory_and_compiles_nothing(dist: Path, tmp_path: Path):
    """Nothing but the environment's own programs on PATH: no compiler."""
    faulthandler.cancel_dump_traceback_later()
    venv.create(tmp_path / "e", with_pip=True)
    programs, cache = tmp_path / "e/bin", tmp_path / "cache"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = kept | {
        "PATH": str(programs),
        "XDG_CACHE_HOME": str(cache),
        "ASCEND_MOE_CPU_TRANSPORT": "windows",  # or an error that says why not
    }

    def run(*command: object) -> None:
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=1200)

    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
    run(*pip, "install", "-q", "torch==2.13.0", "--find-links", dist, "ascend-moe")
    run(programs / "ascend-moe", "demo")
    assert not cache.exists()
