"""docs/hardware.md: its commands exist, and npu_check knows their flags."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hardware.md").read_text()


def test_scripts_exist():
    for name in set(re.findall(r"\bscripts/\w+", PAGE)):
        assert os.access(ROOT / name, os.X_OK), name


def test_flags_of_npu_check():
    command = [sys.executable, ROOT / "scripts/npu_check", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    known = set(re.findall(r"--[a-z]+", done.stdout))
    lines = [line.partition("#")[0] for line in PAGE.splitlines() if "scripts/npu_check" in line]
    used = {
        flag for line in lines for flag in re.findall(r"--[a-z]+", line.partition("npu_check")[2])
    }
    assert {"--ranks", "--phases", "--virtual"} <= used <= known
    named = set(re.findall(r"`(--[a-z]+)", PAGE))
    assert named <= known
