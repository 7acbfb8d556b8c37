"""What the kernel library does for ranks that go on without others: kernels/op_api/survivors.h, by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from ascend_moe.opening import library

UNKNOWN_GROUP: Final = 1
SOMEBODY_MISSING: Final = 2
_PROBLEM_BYTES: Final = 1024


class Members(ctypes.Structure):
    """struct ascend_moe_members."""

    _fields_ = [
        ("ranks", ctypes.c_uint32),
        ("rank", ctypes.c_uint32),
        ("ours", ctypes.c_uint32),
        ("a2", ctypes.c_uint32),
        ("tp", ctypes.c_uint32),
        ("hierarchy", ctypes.c_uint32),
        ("note_words", ctypes.c_uint32),
        ("note_tag", ctypes.c_uint32),
        ("moe_expert_num", ctypes.c_int64),
        ("shared_expert_num", ctypes.c_int64),
        ("shared_expert_rank_num", ctypes.c_int64),
    ]


def members(name: str) -> Members | None:
    """The group of that name on the current device, once its launches have ended; None: there is none."""
    loaded = library()
    if loaded is None or not hasattr(loaded, "ascend_moe_group_members"):
        return None
    found = Members()
    status = _call("members", name, ctypes.byref(found))
    return None if status == UNKNOWN_GROUP else found


def failure(name: str, ranks: int) -> tuple[str, set[int]] | None:
    """Why a launch has given up, and for whom it waited; None: all launches have ended well."""
    waited, problem = _flags((), ranks), ctypes.create_string_buffer(_PROBLEM_BYTES)
    status = _call("failure", name, waited, problem=problem)
    if status != SOMEBODY_MISSING:
        return None
    return problem.value.decode("ascii", "replace"), _set(waited)


def tell(name: str, note: np.ndarray[Any, Any], to: Collection[int], ranks: int) -> None:
    """Writes the note of this rank into the windows of others."""
    _call("tell", name, note.ctypes.data_as(ctypes.c_void_p), _flags(to, ranks))


def hear(name: str, ranks: int, words: int) -> tuple[np.ndarray[Any, Any], set[int]]:
    """The notes in the own window, a row for each rank; and ranks whose processes are known to have ended."""
    notes, dead = np.zeros((ranks, words), np.uint32), _flags((), ranks)
    _call("hear", name, notes.ctypes.data_as(ctypes.c_void_p), dead)
    return notes, _set(dead)


def reopen(name: str, words: Sequence[int], nonce: int, limit_ms: int, ranks: int) -> set[int]:
    """Opens the windows again for those that are left; who did not come."""
    missing, info = _flags((), ranks), (ctypes.c_int32 * len(words))(*words)
    limit = ctypes.c_int64(limit_ms)
    _call("reopen", name, info, ctypes.c_uint32(nonce), limit, missing)
    return _set(missing)


def _call(what: str, name: str, *arguments: Any, problem: Any = None) -> int:
    """Raises RuntimeError with the library's text."""
    problem = problem or ctypes.create_string_buffer(_PROBLEM_BYTES)
    function = getattr(library(), f"ascend_moe_group_{what}")
    status: int = function(name.encode(), *arguments, problem)
    if status not in (0, UNKNOWN_GROUP, SOMEBODY_MISSING):
        raise RuntimeError(problem.value.decode("ascii", "replace") or f"status {status}")
    return status


def _flags(ranks: Collection[int], size: int) -> Any:
    return (ctypes.c_uint8 * size)(*(rank in ranks for rank in range(size)))


def _set(flags: Any) -> set[int]:
    return {rank for rank, flag in enumerate(flags) if flag}
