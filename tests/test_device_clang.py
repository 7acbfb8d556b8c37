"""``scripts/device_clang`` and ``scripts/chromium``, which CI runs first: they install once, or say why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "dirname", "env", "cat", "chmod", "cp", "sh")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The folder of a PATH with no clang and no apt-get."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    program(tmp_path / "id", "echo 0")
    return tmp_path


def program(path: Path, script: str) -> None:
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    path.chmod(0o755)


def with_apt(machine: Path, installs: dict[str, int]) -> None:
    """Its apt-get knows these packages; each brings a clang that ends with that status."""
    cases = "".join(
        f'*" {package}") printf "#!{shutil.which("sh")}\\nexit {status}\\n" >{machine}/{binary};'
        f" chmod 755 {machine}/{binary};;\n"
        for package, status in installs.items()
        for binary in [package.replace("clang", "clang++")]
    )
    program(
        machine / "apt-get",
        f'echo "$*" >>{machine}/log\ncase "$*" in\n*" update") ;;\n{cases}'
        '*) echo "E: Unable to locate package"; exit 100;;\nesac',
    )


def run(machine: Path, script: str = "device_clang") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / script],
        env={"PATH": str(machine), "PYTHON": sys.executable, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def asked(machine: Path) -> int:
    log = machine / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_clang_that_is_here_is_taken(machine):
    with_apt(machine, {})
    program(machine / "clang++-18", "exit 0")
    done = run(machine)
    assert (done.returncode, done.stdout) == (0, f"{machine}/clang++-18\n"), done.stderr
    assert asked(machine) == 0


def test_clang_16_is_installed_once(machine):
    with_apt(machine, {"clang-16": 0, "clang-17": 0})
    done = run(machine)
    assert (done.returncode, done.stdout) == (0, f"{machine}/clang++-16\n"), done.stderr
    assert asked(machine) == 2
    assert run(machine).returncode == 0
    assert asked(machine) == 2


def test_a_later_one_is_installed_where_16_is_not_or_does_not_pass(machine):
    with_apt(machine, {"clang-17": 1, "clang-19": 0})
    done = run(machine)
    assert (done.returncode, done.stdout) == (0, f"{machine}/clang++-19\n")
    assert "clang-16: E: Unable to locate package" in done.stderr
    assert "clang-17 is installed and does not compile for a device" in done.stderr


def test_a_refusal_is_an_error_with_the_reason(machine):
    program(machine / "apt-get", 'echo "E: Failed to fetch: 403 Forbidden"; exit 100')
    done = run(machine)
    assert (done.returncode, done.stdout) == (1, "")
    assert "clang-16: E: Failed to fetch: 403 Forbidden" in done.stderr
    assert done.stderr.endswith("no clang for the device compile\n")


def test_ci_never_skips_the_device_compile():
    script = (ROOT / ".ci/run").read_text()
    assert script.index("scripts/device_clang\n") < script.index("env REQUIRE_CLANG=1")


def test_chromium_is_installed_once_or_the_reason_is_said(machine):
    with_apt(machine, {})
    done = run(machine, "chromium")
    assert done.returncode == 1
    assert "E: Unable to locate package" in done.stderr
    with_apt(machine, {"chromium": 0})
    for _ in range(2):
        done = run(machine, "chromium")
        assert (done.returncode, done.stdout) == (0, f"{machine}/chromium\n"), done.stderr
    assert asked(machine) == 4


def test_ci_never_skips_the_pages():
    script = (ROOT / ".ci/run").read_text()
    assert script.index("scripts/chromium\n") < script.index("REQUIRE_CHROMIUM=1 scripts/test --ci")
