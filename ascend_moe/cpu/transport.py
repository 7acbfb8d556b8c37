"""How the rows of a group travel: through shared memory if all its ranks are on one host, else over torch.distributed.

The ranks decide together, once, in the group's first call: that call travels over torch.distributed, and when its
statements have shown that it takes place, they tell each other where they are and what they were asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import Final

import torch.distributed as dist

from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.distributed.steps import Far
from ascend_moe.cpu.windows import memory
from ascend_moe.cpu.windows.control import control_bytes
from ascend_moe.cpu.windows.engine import native
from ascend_moe.cpu.windows.exchange import WindowExchange
from ascend_moe.cpu.windows.group import Windows

VARIABLE: Final = "ASCEND_MOE_CPU_TRANSPORT"
AUTO, WINDOWS, DISTRIBUTED = CHOICES = ("auto", "windows", "distributed")
_log = logging.getLogger("ascend_moe")


def preference() -> str:
    """``ASCEND_MOE_CPU_TRANSPORT``: auto unless set. Raises ValueError for an unknown name."""
    named = os.environ.get(VARIABLE) or AUTO
    if named not in CHOICES:
        raise ValueError(f"{VARIABLE} is {named!a}, allowed: {', '.join(CHOICES)}")
    return named


def line(group: dist.ProcessGroup, *, what: str, measured: bool) -> Exchange | WindowExchange:
    """One call's exchange with the peers of a group; measured: whether its `waited` is wanted."""
    windows = state_of(group).windows
    if windows is None:
        return Exchange(group, what=what, measured=measured)
    return WindowExchange(group, windows, what=what)


def choose(group: dist.ProcessGroup, *, what: str) -> None:
    """Decides with all ranks of the group; does nothing when that is done.

    Raises RuntimeError, on all ranks, when shared memory was asked for by name and cannot be had.
    """
    state = state_of(group)
    if state.transport_chosen:
        return
    exchange = Exchange(group, what=what)
    asked = CHOICES.index(preference())
    own = [asked, _capable(), *_whereabouts()]
    said = exchange.statements(own, [0] * group.size())
    numbers = [one.numbers[: len(own)] for one in said]
    reason = _why_not(numbers)
    if not reason:
        reason = _share(group, exchange, [pid for *_, pid in numbers])
    by_name = [r for r, (one, *_) in enumerate(numbers) if CHOICES[one] == WINDOWS]
    if reason and by_name:
        raise RuntimeError(f"{what}: rank {by_name[0]} has {VARIABLE}={WINDOWS}, but {reason}")
    state.transport_chosen = True
    engine = native()
    if engine is not None and all(capable == _CAPABLE for _, capable, *_ in numbers):
        state.far = Far(group, state, engine)
    if state.windows is not None:
        _log.info("group %a: rows travel through shared memory", group.group_name)
    else:
        level = logging.INFO if _was_asked_for(numbers) else logging.WARNING
        _log.log(
            level, "group %a: rows travel over torch.distributed: %s", group.group_name, reason
        )


def _was_asked_for(numbers: list[list[int]]) -> bool:
    return any(CHOICES[one] == DISTRIBUTED for one, *_ in numbers)


def _why_not(numbers: list[list[int]]) -> str:
    """Why the ranks cannot share memory; empty when they perhaps can."""
    for rank, (asked, capable, *_) in enumerate(numbers):
        if CHOICES[asked] == DISTRIBUTED:
            return f"rank {rank} has {VARIABLE}={DISTRIBUTED}"
        if capable != _CAPABLE:
            return f"rank {rank} lacks {_LACKING[capable]}"
    for rank, (_, _, host, namespace, user, _) in enumerate(numbers):
        if [host, namespace, user] != numbers[0][2:5]:
            return f"ranks 0 and {rank} differ in host, pid namespace or user"
    return ""


def _share(group: dist.ProcessGroup, exchange: Exchange, pids: list[int]) -> str:
    """Makes the control memory; returns why it could not be made, or "". Sets the group's windows."""
    nobody, size, state = [0] * group.size(), control_bytes(group.size()), state_of(group)
    descriptor, reason = -1, ""
    if group.rank() == 0:
        try:
            descriptor = memory.create(size)
        except OSError as error:
            reason = str(error)
    try:
        offered = exchange.statements([descriptor], nobody)[0].numbers[0]
        windows = None
        engine = native()
        if offered >= 0 and engine is not None:
            try:
                control = memory.map_of_process(pids[0], offered, size)
                windows = Windows(group, state, control, pids, engine)
            except OSError as error:
                reason = str(error)
        have = [one.numbers[0] for one in exchange.statements([int(windows is not None)], nobody)]
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if all(have):
        state.windows = windows
        return ""
    return f"shared memory cannot be had on rank {have.index(0)}{': ' if reason else ''}{reason}"


_LACKING: Final = ("memfd_create or pidfd_open (Linux 5.3)", "the compiled engine")
_CAPABLE: Final = len(_LACKING)


def _capable() -> int:
    """An index into `_LACKING`, or `_CAPABLE`."""
    if sys.platform != "linux" or not (hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")):
        return 0
    return 1 if native() is None else _CAPABLE


def _whereabouts() -> list[int]:
    """Host, pid namespace, user, process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        boot, namespace = os.urandom(16), 0  # equal to nobody's
    host = int.from_bytes(hashlib.sha256(boot).digest()[:7], "big")
    return [host, namespace, os.getuid(), os.getpid()]
