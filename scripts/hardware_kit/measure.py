"""The loops of ``estimate`` on this device. Only the rank that measures runs them; the others lend their windows."""

from __future__ import annotations

import ctypes
import secrets

from hardware_kit.estimate import Times, Work
from hardware_kit.probe_library import MAX_CORES, ProbeLibrary, Refused, Windows

SLOTS = 8  # kMeasureSlots of kernels/device/abi.h


class Measuring(ctypes.Structure):
    """``ascend_moe::Measuring``."""

    _fields_ = [
        (name, ctypes.c_uint32) for name in ("what", "peer", "other", "turns", "bytes", "mark")
    ]


class OnDevice:
    """Loops on this device (kernels/op_api/measure_probe.cpp)."""

    def __init__(self, library: ProbeLibrary, group: str, windows: Windows) -> None:
        self._library, self._group, self._windows = library, group, windows

    def __call__(
        self, work: Work, *, peer: int, other: int, turns: int, size: int, cores: int, launches: int
    ) -> Times:
        """Raises Refused."""
        wanted = Measuring(work, peer, other, turns, size, secrets.randbits(31) | 1)
        ticks, host_ns = (ctypes.c_uint32 * MAX_CORES)(), ctypes.c_int64()
        ranks = len(self._windows.base)
        status = self._library.call(
            "ascend_moe_probe_measure",
            *(self._group.encode(), self._windows.rank, ranks),
            *(ctypes.c_uint64(self._windows.bytes), (ctypes.c_uint64 * ranks)(*self._windows.base)),
            *(cores, launches, ctypes.byref(wanted), ticks, ctypes.byref(host_ns)),
        )
        if status != 0:
            raise Refused(f"{work.name} on {cores} cores returned {status}: {self._library.text()}")
        if launches and not all(ticks[:cores]) and turns:
            raise Refused(f"{work.name}: not all of {cores} cores said how long they took")
        return Times(list(ticks[:cores]), host_ns.value)
