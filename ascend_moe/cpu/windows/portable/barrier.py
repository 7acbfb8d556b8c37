"""The barrier of ``native/protocol.h``: plain stores and loads of numpy, ordered and woken by the futex system call."""

from __future__ import annotations

import ctypes
import platform
import threading
import time
from functools import lru_cache
from typing import Any, Final

from ascend_moe.cpu.windows.control import Control

_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine())
_IN_ORDER: Final = platform.machine() == "x86_64"
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAKE_HERE = map(ctypes.c_int, (0, 1, 1 | 128))
_ALL, _ONE = ctypes.c_int32(2**31 - 1), ctypes.c_int32(1)
_POLL_S: Final = 50e-6
"""Between two looks, where the number of the futex system call is not known."""

_syscall: Any = ctypes.CDLL(None).syscall
_NUMBER: Final = ctypes.c_long(_SYS_FUTEX or 0)
_nobody_sleeps_here: Final = ctypes.c_int32(0)
_ITS_ADDRESS: Final = ctypes.byref(_nobody_sleeps_here)
_lock: Final = threading.Lock()


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def arrive(control: Control, rank: int, barrier: int) -> None:
    """What this rank wrote is seen by whoever sees the barrier complete."""
    number = _int32(barrier)
    control.arrived_ns[rank, barrier & 1] = time.monotonic_ns()
    _fence_but_on_x86()  # what was written before the flag
    control.flags[rank] = number
    _fence()  # the flag before the look at the others': of two ranks that arrive last one sees both
    complete_if_all_arrived(control, number)


def wait(control: Control, barrier: int, microseconds: int) -> bool:
    """True when the barrier is complete, False when the time is over."""
    generation, number = control.generation, _int32(barrier)
    seen = int(generation[0])
    if _reached(seen, number):
        _fence_but_on_x86()
        return True
    left = microseconds * 1000
    end = time.monotonic_ns() + left
    address = ctypes.c_void_p(control.generation_address)
    while True:
        if left <= 0:
            return complete_if_all_arrived(control, number)
        if _SYS_FUTEX is None:
            time.sleep(_POLL_S)
            complete_if_all_arrived(control, number)
        else:
            _syscall(_NUMBER, address, _FUTEX_WAIT, ctypes.c_int32(seen), _limit(left), None, 0)
        seen = int(generation[0])
        if _reached(seen, number):
            _fence_but_on_x86()  # the number before what it stands for
            return True
        left = end - time.monotonic_ns()


def complete_if_all_arrived(control: Control, number: int) -> bool:
    """Lets all go on if all are there; every rank may do so. Only then is anybody woken."""
    flags = control.flags.tolist()
    if flags.count(number) < len(flags):  # else there is nothing to compare one by one
        for flag in flags:
            if not _reached(flag, number):
                return False
    _fence_but_on_x86()  # the flags before the number, and before what the ranks published
    control.generation[0] = number
    if _SYS_FUTEX is not None:
        address = ctypes.c_void_p(control.generation_address)
        _syscall(_NUMBER, address, _FUTEX_WAKE, _ALL, None, None, 0)
    return True


@lru_cache(maxsize=4)
def _limit(nanoseconds: int) -> Any:
    """For the system call, which only reads it."""
    return ctypes.byref(_Timespec(*divmod(nanoseconds, 10**9)))


def _fence() -> None:
    """Nothing before it is seen after what follows it, by any rank.

    On x86 every change of a lock is a full barrier of the machine; elsewhere futex begins with one.
    """
    if _IN_ORDER or _SYS_FUTEX is None:
        with _lock:
            return
    _syscall(_NUMBER, _ITS_ADDRESS, _FUTEX_WAKE_HERE, _ONE, None, None, 0)


def _fence_but_on_x86() -> None:
    """Where stores are seen in order, and loads happen in order, only a store before a load needs `_fence`."""
    if not _IN_ORDER:
        _fence()


def _reached(number: int, barrier: int) -> bool:
    return _int32(number - barrier) >= 0


def _int32(number: int) -> int:
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)
