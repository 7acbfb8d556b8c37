"""Where the installed torch and torch_npu are, found without importing them, and whether they will do.

Importing torch_npu is what the virtual NPU makes possible, so it cannot be the way to look.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ascend_moe.vnpu.errors import VirtualNpuError

DEFAULT = "2.13.0"
# Wheels that passed the tests of the virtual NPU (scripts/compat); a test holds docs/compatibility.md to it.
TESTED = (
    "2.7.1.post11",
    "2.8.0.post4",
    "2.9.0.post9",
    "2.10.0.post4",
    "2.10.0.post7",
    DEFAULT,
)
INSTALL = f"pip install torch=={DEFAULT} torch_npu=={DEFAULT}"
# Keys of the allocators' configuration. torch for CUDA registers them from 2.10 on, as does a torch_npu with the hook
# for it; whichever comes second aborts the process ("Duplicated key"). Seen with 2.10.0.post7 and 2.14.0.
SHARED_KEYS = (b"pinned_reserve_segment_size_mb", b"per_process_memory_fraction")
HOOK = b"registerDeviceConfigParserHook"
NAMED = 8  # of what is missing


@dataclass(frozen=True)
class Wheels:
    """The two packages that the stand-in is built against."""

    torch: Path
    torch_npu: Path
    versions: str  # part of the key of a build


def installed_wheels() -> Wheels:
    """Find both packages. A torch_npu that was never tested is used, and a line on stderr says so.

    Raises VirtualNpuError when one is missing, when they do not belong together, or when they are known to abort.
    """
    torch_npu = _package("torch_npu", INSTALL)
    torch = _package("torch", INSTALL)
    npu_version, torch_version = metadata.version("torch_npu"), metadata.version("torch")
    release = _release(npu_version)
    if _release(torch_version) != release:
        wanted = ".".join(map(str, release))
        raise VirtualNpuError(
            f"torch_npu {npu_version} needs torch {wanted}, but {torch_version} is installed; "
            f"pip install torch=={wanted}"
        )
    if both_register(torch, torch_npu):
        wanted = ".".join(map(str, release))
        raise VirtualNpuError(
            f"torch_npu {npu_version} cannot be imported beside a torch built for CUDA, which {torch_version} here is; "
            f"pip install torch=={wanted}+cpu --index-url https://download.pytorch.org/whl/cpu"
        )
    if npu_version.split("+")[0] not in TESTED:
        say = f"torch_npu {npu_version} was not tested on the virtual NPU, {', '.join(TESTED)} were"
        print(f"ascend-moe: {say}", file=sys.stderr, flush=True)
    return Wheels(torch, torch_npu, f"torch {torch_version} torch_npu {npu_version}")


def require_all_it_needs(home: Path) -> None:
    """Raise VirtualNpuError if the wheel links to more than the stand-in has: its build made a list of that."""
    beyond = (home / "beyond.txt").read_text().split()
    if beyond:
        more = f" and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
        raise VirtualNpuError(
            f"torch_npu {metadata.version('torch_npu')} needs what the virtual NPU does not have: "
            f"{', '.join(beyond[:NAMED])}{more}; {INSTALL}"
        )


def _package(name: str, command: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise VirtualNpuError(f"the virtual NPU needs {name}, which is not installed; {command}")
    return Path(next(iter(spec.submodule_search_locations)))


def _release(version: str) -> tuple[int, ...]:
    """2.10.0.post4 and 2.10.0+cpu are both of 2.10.0."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def allocator_for_cuda(torch: Path) -> Path:
    """The library of torch that registers the keys; only a build for CUDA has it."""
    return torch / "lib/libc10_cuda.so"


def both_register(torch: Path, torch_npu: Path) -> bool:
    """Whether the two cannot be imported together."""
    cuda, npu = allocator_for_cuda(torch), torch_npu / "lib/libtorch_npu.so"
    keys = cuda.read_bytes() if cuda.exists() else b""
    return any(key in keys for key in SHARED_KEYS) and HOOK in npu.read_bytes()
