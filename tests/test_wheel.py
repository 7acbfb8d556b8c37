"""A wheel holds the package, the CPU operators' library, and the kernel sources as ascend_moe/_kernels."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ascend_moe.hardware import kernel_library

ROOT = Path(__file__).parents[1]
CPU_LIBRARY = Path("ascend_moe/cpu/windows/libascend_moe_cpu.so")
PLUGIN = "ascend_moe_pytest.py"
METADATA = ["pyproject.toml", "setup.py", "README.md", "LICENSE", PLUGIN]
BUILT = shutil.ignore_patterns("__pycache__", "build", ".*", "*.so", "*.o")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, because setuptools leaves build/ and *.egg-info in the folder it builds."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    for folder in ("ascend_moe", "kernels"):
        shutil.copytree(ROOT / folder, source / folder, ignore=BUILT)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    copy = source.parent / "copy"
    shutil.copytree(source, copy)
    for name in METADATA:
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    wheels = source.parent / "wheels"
    subprocess.run([*pip, *offline, "-w", wheels, copy], check=True, timeout=120)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def test_wheel_holds_all_sources(source: Path, wheel: Path) -> None:
    expected = {
        path.relative_to(source).as_posix().replace("kernels/", "ascend_moe/_kernels/", 1)
        for path in source.rglob("*")
        if path.is_file() and not path.is_relative_to(source / CPU_LIBRARY.parent / "native")
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected | {CPU_LIBRARY.as_posix(), PLUGIN}
    assert re.search("-py3-none-linux_\\w+.whl$", wheel.name)


def test_kernels_can_be_built_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Without the clone: the same sources are found, and what is missing for a build is said."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    dropped = ("ASCEND_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment = kept | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    key = "from ascend_moe.hardware.kernel_library import source_key; print(source_key())"
    assert run("-c", key).stdout.strip() == kernel_library.source_key()
    done = run("-m", "ascend_moe", "env")
    assert done.returncode == 1
    assert "python -m ascend_moe.hardware.build" in done.stderr
    done = run("-m", "ascend_moe.hardware.build")
    assert done.returncode == 1
    assert "build_kernels npu-a3: missing: " in done.stderr
