"""What a running process has loaded, and with which environment it was started: from /proc."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ascend_moe.hardware.kernel_library import LIBRARY, OPP_VARIABLE, VENDOR

TORCH_NPU = "libtorch_npu.so"
PROC = Path("/proc")


class Process(NamedTuple):
    """A process as doctor needs it."""

    pid: int
    started_with: str  # ASCEND_CUSTOM_OPP_PATH when it started
    torch_npu: bool  # libtorch_npu is loaded
    custom: tuple[str, ...]  # the libcust_opapi.so that are loaded

    @property
    def ours_loaded(self) -> bool:
        """Whether our library is loaded, which happens at the first call of an operator."""
        return any(Path(path).parts[-4] == VENDOR.name for path in self.custom)

    @property
    def names_ours(self) -> bool:
        """Whether it was started with a vendor directory of ours on the path."""
        return any(Path(entry).name == VENDOR.name for entry in self.started_with.split(":"))


def look_at(pid: int) -> Process:
    """Read a process.

    Raises ValueError when there is none of that number or it belongs to somebody else.
    """
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
        maps = (PROC / str(pid) / "maps").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ValueError(f"there is no process {pid}") from None
    except PermissionError:
        raise ValueError(f"process {pid} belongs to somebody else") from None
    files = {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/") > 1}
    prefix = f"{OPP_VARIABLE}=".encode()
    named = [entry for entry in environment.split(b"\0") if entry.startswith(prefix)]
    return Process(
        pid,
        named[0][len(prefix) :].decode(errors="replace") if named else "",
        any(Path(file).name == TORCH_NPU for file in files),
        tuple(sorted(file for file in files if Path(file).name == LIBRARY.name)),
    )
