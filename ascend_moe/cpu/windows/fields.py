"""How Python and ``native/`` talk to each other: the same structures and numbers as there."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Any, Final

from ascend_moe.cpu.operators.statements import NUMBERS


class Code(IntEnum):
    """Why a step returns."""

    DONE, WAITING, LOOK, NOT_PUBLISHED, INVALID, CORRUPT, BAD_ROWS, UNMAPPED, IN_PLACE = range(9)


class Phase(IntEnum):
    """Where a call stands when it steps again."""

    START, FIRST_BARRIER, JUDGED, PUBLISH, SECOND_BARRIER = range(5)


ANY, EQUAL, IS_RANK = range(3)
"""What a number of a statement must be on the other ranks."""


def _words(text: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int64) for name in text.split()]


class CallFields(ctypes.Structure):
    """``Call`` of ``native/call.h``."""

    _fields_ = [
        *_words("phase barrier early room base ids mask"),
        *_words("group bs topk max_bs mask_dims ordered_mask"),
        *_words("moe_experts all_experts local_experts shared_experts shared_ranks replicas"),
        *_words("way rows_per_token mask_number bs_number has_global_bs"),
        *_words("slice_us cache_bytes detail"),
        ("numbers", ctypes.c_int64 * NUMBERS),
        ("comparison", ctypes.c_int64 * NUMBERS),
    ]


class DispatchFields(CallFields):
    """``Dispatch`` of ``native/dispatch.h``."""

    _fields_ = [
        *_words("x scales expert_scales"),
        *_words("expand_x dynamic_scales assist_info token_nums counts tp_counts expand_scales"),
        *_words("rows_before rows_received"),
        *_words("hidden element row_bytes quantised smooth carries_scales handle_of_a2"),
        *_words("token_nums_type max_rows layout_rows_per_token"),
        *_words("rows_at scales_at weights_at given_at lanes_at"),
    ]


class CombineFields(CallFields):
    """``Combine`` of ``native/combine.h``."""

    _fields_ = [
        *_words("expand_x assist_info send_counts weights"),
        *_words("shared_expert_x ori_x blends blend_of output"),
        *_words("hidden element row_bytes row_limit max_rows prefix_length"),
        *_words("zero_experts copy_experts"),
        *_words("memory descriptor memory_offset memory_size known rows_at sent_at lists_at"),
        *_words("missing missing_count doubled doubled_count"),
    ]


TENSOR_DIMS: Final = 4
"""Of a tensor of a repeated call at most."""


class ExpectedFields(ctypes.Structure):
    """``Expected`` of ``native/tensors.h``."""

    _fields_ = [*_words("given word code bits dims"), ("shape", ctypes.c_int64 * TENSOR_DIMS)]


class OutputFields(ctypes.Structure):
    """``OutputShape`` of ``native/outputs.h``."""

    _fields_ = [
        *_words("code bits dims"),
        ("shape", ctypes.c_int64 * 2),
        ("stride", ctypes.c_int64 * 2),
    ]


class RepeatFields(ctypes.Structure):
    """``Repeat`` of ``native/repeat.h``; as many `ExpectedFields` follow as ``count`` says."""

    _fields_ = _words(
        "code now torch shelf is_combine call first_output rows_before rows_limit"
        " none tensor_type count"
    )


class GroupFields(ctypes.Structure):
    """``Group`` of ``native/protocol.h``."""

    _fields_ = _words("control ranks rank")


class MailFields(GroupFields):
    """``Mail`` of ``native/messages.h``."""

    _fields_ = _words("number peers room outgoing capacity incoming apart")


KNOWN_WORDS: Final = 3
"""Of ``Known`` of ``native/combine.h``."""

PEER_WORDS: Final = 5
"""Of ``Peer`` of ``native/messages.h``; the first two are the bytes that go to a rank, and that are ready for it."""


def word_of(fields: type[ctypes.Structure], name: str) -> int:
    """Which word of the structure a field is."""
    return int(getattr(fields, name).offset) // 8


def words_of(fields: type[ctypes.Structure], **tensors: str) -> dict[str, int]:
    """Which word takes the address of which tensor."""
    return {name: word_of(fields, field) for name, field in tensors.items()}
