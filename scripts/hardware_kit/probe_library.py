"""Our kernel library through its probes (kernels/op_api/first_steps_probe.cpp), and HCCL: ctypes, without torch.

``python -m hardware_kit.probe_library LIBRARY`` loads it in a process that has loaded nothing else and prints as JSON
what is in it; it opens no device.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ascend_moe.hardware.kernel_library import MARK
from ascend_moe.hardware.lookup import CUSTOM, OPERATORS, Candidate, candidates

PROBES = (
    "ascend_moe_probe_granted_cores",
    "ascend_moe_probe_cores",
    "ascend_moe_probe_row",
    "ascend_moe_probe_ping_pong",
    "ascend_moe_probe_measure",
    "ascend_moe_probe_force_cores",
)
GENERATIONS = (2, 3, 4)
# kernels/device/abi.h
MAX_CORES = 48
CORE_WORDS = 24
ROW_BYTES = 512
BLOCK_WORDS = 8
CARD_WORDS = 2
# hccl_types.h
ROOT_INFO_BYTES = 4108
NAME_BYTES = 128
MAX_RANKS = 16


def first_custom(env: Mapping[str, str]) -> tuple[Path | None, list[Candidate]]:
    """The library that torch_npu's search comes to first, and those of another owner that it passes over."""
    custom = [library for library in candidates(env) if library.kind == CUSTOM]
    taken = next((library.path for library in custom if not library.skipped), None)
    return taken, [library for library in custom if library.skipped]


class Cores(NamedTuple):
    """What a launch of the cores' kernel showed: see abi.h, CoreBlock and CoreWord."""

    status: int  # of launch and stream
    launched: int  # of the launch alone
    text: str
    began_ns: int
    reports: list[list[int]]  # of every core that was asked for, CORE_WORDS words


class Windows(NamedTuple):
    """Where the windows of a group are mapped in this process."""

    rank: int
    base: list[int]
    bytes: int
    provider: str
    card: list[int]  # CardContext: queue tables and output window; zeros in one server


class Refused(Exception):
    """A call of the library or of CANN that returned an error: its text."""


class ProbeLibrary:
    """The library on one device. CANN's own functions are found in what the library itself has loaded."""

    def __init__(self, path: Path, device: int) -> None:
        self._library = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        self._library.aclGetRecentErrMsg.restype = ctypes.c_char_p
        self._library.aclInit(None)
        self._check("aclrtSetDevice", self._library.aclrtSetDevice(device))

    def text(self) -> str:
        """What CANN's error manager has of this thread since it was asked last."""
        text: bytes | None = self._library.aclGetRecentErrMsg()
        return " ".join((text or b"").decode(errors="replace").split())

    def call(self, name: str, *arguments: Any) -> int:
        """A function of the library; its text is that of this call."""
        self.text()
        return int(getattr(self._library, name)(*arguments))

    def _check(self, call: str, status: int) -> None:
        if status != 0:
            raise Refused(f"{call} returned {status}: {self.text()}")

    def granted_cores(self) -> int:
        """How many cores the operators would launch on."""
        return int(self._library.ascend_moe_probe_granted_cores())

    def cores(self, blocks: int, mark: int) -> Cores:
        """Every core of one launch reports itself; 0 blocks must fail."""
        self.text()
        report = (ctypes.c_uint32 * (MAX_CORES * CORE_WORDS))()
        launched, began, ended = ctypes.c_int32(), ctypes.c_int64(), ctypes.c_int64()
        status = self._library.ascend_moe_probe_cores(
            blocks, mark, report, ctypes.byref(launched), ctypes.byref(began), ctypes.byref(ended)
        )
        words = list(report)
        return Cores(
            status,
            launched.value,
            self.text(),
            began.value,
            [words[core * CORE_WORDS : (core + 1) * CORE_WORDS] for core in range(blocks)],
        )

    def windows(self, group: str, *, card: bool = False) -> Windows:
        """Collective. Raises Refused with the text of the library. ``card``: of several servers, with the queues."""
        self.text()
        stream = ctypes.c_void_p()
        self._check("aclrtCreateStream", self._library.aclrtCreateStream(ctypes.byref(stream)))
        rank, ranks, size = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_uint64()
        base = (ctypes.c_uint64 * MAX_RANKS)()
        provider, queues = ctypes.create_string_buffer(32), (ctypes.c_uint64 * CARD_WORDS)()
        name = "ascend_moe_windows_and_queues" if card else "ascend_moe_windows"
        status = getattr(self._library, name)(
            group.encode(), stream, ctypes.byref(rank), ctypes.byref(ranks), ctypes.byref(size),
            base, MAX_RANKS, queues if card else provider,
        )  # fmt: skip
        self._check(name, status)
        where = "rdma" if card else provider.value.decode()
        return Windows(rank.value, list(base[: ranks.value]), size.value, where, list(queues))

    def row(
        self, group: str, windows: Windows, nonce: int, row: bytes
    ) -> tuple[int, str, bytes, list[int]]:
        """A row to the next rank, one from the rank before: status, text, what came, the error block."""
        self.text()
        ranks = len(windows.base)
        received = ctypes.create_string_buffer(ROW_BYTES)
        record = (ctypes.c_uint32 * BLOCK_WORDS)()
        status = self._library.ascend_moe_probe_row(
            group.encode(), windows.rank, ranks, ctypes.c_uint64(windows.bytes),
            (ctypes.c_uint64 * ranks)(*windows.base), nonce, row, received, record,
        )  # fmt: skip
        return status, self.text(), received.raw, list(record)


class Hccl:
    """A communicator by HCCL's public functions, as torch_npu makes its groups."""

    def __init__(self, errors: ProbeLibrary) -> None:
        self._errors = errors
        self._libraries = [ctypes.CDLL("libhccl.so", mode=os.RTLD_NOW | os.RTLD_GLOBAL)]
        with contextlib.suppress(OSError):  # CANN 9 has most functions there
            self._libraries.append(ctypes.CDLL("libhcomm.so", mode=os.RTLD_NOW | os.RTLD_GLOBAL))
        self._comm = ctypes.c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:
        function = next(
            (found for one in self._libraries if (found := getattr(one, name, None))), None
        )
        if function is None:
            raise Refused(f"neither libhccl.so nor libhcomm.so has {name}")
        status = function(*arguments)
        if status != 0:
            raise Refused(f"{name} returned {status}: {self._errors.text()}")

    def root(self) -> bytes:
        """By rank 0: what the others need to find it."""
        info = ctypes.create_string_buffer(ROOT_INFO_BYTES)
        self._call("HcclGetRootInfo", info)
        return info.raw

    def group(self, root: bytes, rank: int, ranks: int) -> str:
        """The name of a new communicator; collective."""
        info = ctypes.create_string_buffer(root, ROOT_INFO_BYTES)
        self._call("HcclCommInitRootInfo", ranks, info, rank, ctypes.byref(self._comm))
        name = ctypes.create_string_buffer(NAME_BYTES)
        self._call("HcclGetCommName", self._comm, name)
        return name.value.decode()

    def close(self) -> None:
        self._call("HcclCommDestroy", self._comm)


def look_into(path: str) -> dict[str, Any]:
    """What dlopen says, our mark, and which functions are there."""
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        return {"error": str(error)}
    stems = [
        f"aclnnMoeDistribute{operator.capitalize()}V{generation}"
        for operator in OPERATORS
        for generation in GENERATIONS
    ]
    wanted = [stem + phase for stem in stems for phase in ("GetWorkspaceSize", "")]
    return {
        "version": getattr(library, MARK)() if hasattr(library, MARK) else None,
        "lacks": [name for name in (*wanted, *PROBES) if not hasattr(library, name)],
    }


if __name__ == "__main__":
    print(json.dumps(look_into(sys.argv[1])))
