"""Where the installed torch and torch_npu are, found without importing them.

Importing torch_npu is what the virtual NPU makes possible, so it cannot be the way to look.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ascend_moe.vnpu.errors import VirtualNpuError

SUPPORTED = "2.13.0"
INSTALL = f"pip install torch_npu=={SUPPORTED}"


@dataclass(frozen=True)
class Wheels:
    """The two packages that the stand-in is built against."""

    torch: Path
    torch_npu: Path
    versions: str  # part of the key of a build


def installed_wheels() -> Wheels:
    """Find both packages.

    Raises VirtualNpuError when one is missing or torch_npu has another version than 2.13.0: which
    functions torch_npu calls, and how, changes from version to version.
    """
    torch_npu = _package("torch_npu", INSTALL)
    torch = _package("torch", f"pip install torch=={SUPPORTED}")
    found = metadata.version("torch_npu")
    if found.split("+")[0] != SUPPORTED:
        raise VirtualNpuError(
            f"the virtual NPU works with torch_npu {SUPPORTED}, but {found} is installed; {INSTALL}"
        )
    return Wheels(torch, torch_npu, f"torch {metadata.version('torch')} torch_npu {found}")


def _package(name: str, command: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise VirtualNpuError(f"the virtual NPU needs {name}, which is not installed; {command}")
    return Path(next(iter(spec.submodule_search_locations)))
