"""The steps of ``native/`` in torch and numpy, where there is no compiler: same memory, same protocol, same bits.

A call of Python costs as much as copying a row, so what decides the speed is how many there are: each step handles all
rows at once, what stays the same is laid out once for a kind of call, and buffers are kept, because touching a fresh
page costs more than filling it.

``choice``    what is remembered of the last calls: the tokens' choices, and the rows of a dispatch
``barrier``   arriving, waiting and waking, by the futex system call
``steps``     what both operators do: check, post, publish, meet, compare, receive
``dispatch``  who wants which token, rows fetched in final order
``combine``   rows pushed home, and found there
``total``     the weighted sum over a token's rows
``arrays``    rows and memory as numpy sees them
"""

from typing import Final

from ascend_moe.cpu.windows.portable.barrier import arrive, wait
from ascend_moe.cpu.windows.portable.choice import HANDLES_KEPT, Choice, Handle
from ascend_moe.cpu.windows.portable.combine import CombineSteps
from ascend_moe.cpu.windows.portable.dispatch import DispatchSteps
from ascend_moe.cpu.windows.portable.steps import Steps

STEPS: Final = {"dispatch": DispatchSteps, "combine": CombineSteps}

__all__ = [
    "HANDLES_KEPT",
    "STEPS",
    "Choice",
    "CombineSteps",
    "DispatchSteps",
    "Handle",
    "Steps",
    "arrive",
    "wait",
]
