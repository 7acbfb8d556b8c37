"""The wheel holds every source of the package, and the kernel sources as ascend_moe/_kernels."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
METADATA = ["pyproject.toml", "setup.py", "README.md", "LICENSE"]
BUILT = shutil.ignore_patterns("__pycache__", "build", ".*", "*.so", "*.o")


def test_wheel_holds_all_sources(tmp_path: Path) -> None:
    # A copy, because setuptools leaves build/ and *.egg-info in the folder it builds.
    source = tmp_path / "source"
    for folder in ("ascend_moe", "kernels"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, source / folder, ignore=BUILT)
    expected = {
        path.relative_to(source).as_posix().replace("kernels/", "ascend_moe/_kernels/", 1)
        for path in source.rglob("*")
        if path.is_file()
    }
    for name in METADATA:
        shutil.copy(ROOT / name, source)

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    wheels = tmp_path / "wheels"
    subprocess.run([*pip, *offline, "-w", wheels, source], check=True, timeout=120)

    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected
