"""Finding clang, and one device compile: its diagnostics and its syntax tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .findings import Finding

VERSIONS = ((8, 5), (9, 1))
"""Of AscendC: the two that kernels/device/shim.h tells apart."""

NAMES = (*(f"clang++-{major}" for major in range(16, 23)), "clang++")
"""The oldest first: it knows the fewest warnings, and is what CI installs."""

MODE = (
    # HIP because clang's CUDA target has no _Float16. The last flag: a constexpr function without __aicore__ is the
    # host's, as every other.
    *("-x", "hip", "--cuda-device-only", "--offload-arch=gfx90a", "-nogpuinc", "-nogpulib"),
    *("-std=c++17", "-fsyntax-only", "-Xclang", "-fno-cuda-host-device-constexpr"),
)
REPORT = (
    *("-Wall", "-Wno-unused-function", "-ferror-limit=0", "-fno-color-diagnostics"),
    *("-fno-caret-diagnostics", "-fdiagnostics-absolute-paths", "-Xclang", "-ast-dump=json"),
)
PROBE = """
static_assert(__clang_major__ >= 16);
__attribute__((device)) _Float16 Read(__attribute__((address_space(101))) _Float16* at) { return *at; }
"""
LIMIT_S = 300

DIAGNOSTIC = re.compile(
    r"(?P<file>/.*?):(?P<line>\d+):(?:\d+:)? (?P<kind>(?:fatal )?error|warning|note): (?P<text>.*)"
)


class BrokenCompilerError(Exception):
    """clang ended in a way that says nothing about the sources."""


def find() -> str | None:
    """The path of a clang that can compile for a device; None where there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None and _run([path, *MODE, "-"], PROBE).returncode == 0:
            return path
    return None


def compile_device(
    clang: str, device: Path, version: tuple[int, int]
) -> tuple[list[Finding], dict[str, Any]]:
    """The errors and warnings of one version of AscendC, and the tree in clang's JSON."""
    major, minor = version
    command = [
        *(clang, *MODE, *REPORT, f"-I{Path(__file__).parent}"),
        *(f"-DASC_DEVKIT_MAJOR={major}", f"-DASC_DEVKIT_MINOR={minor}"),
        str(device / "moe_kernels.cpp"),
    ]
    done = _run(command)
    found = list(_diagnostics(done.stderr, device))
    try:
        tree = json.loads(done.stdout)
    except json.JSONDecodeError:
        tree = {}
    if (done.returncode != 0 or not tree) and not found:
        raise BrokenCompilerError(f"{clang} ended with {done.returncode}: {done.stderr[-2000:]}")
    return found, tree


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def _diagnostics(stderr: str, device: Path) -> list[Finding]:
    """An error inside kernel_operator.h is reported where the kernels asked for it: by the first note from there."""
    found: list[Finding] = []
    elsewhere = False  # the last one still waits for a line of the kernels
    for match in filter(None, map(DIAGNOSTIC.fullmatch, stderr.splitlines())):
        file, line = Path(match["file"]), int(match["line"])
        inside = file.is_relative_to(device)
        if match["kind"] != "note":
            rule = "warning" if match["kind"] == "warning" else "compile"
            found.append(Finding(file, line, rule, match["text"]))
            elsewhere = not inside
        elif elsewhere and inside:
            found[-1] = found[-1]._replace(file=file, line=line)
            elsewhere = False
        elif found[-1].text.startswith("no matching") and "not viable" in match["text"]:
            found[-1] = found[-1]._replace(text=f"{found[-1].text} ({match['text']})")
    return found
