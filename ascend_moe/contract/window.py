"""How large the HCCL buffer is: HCCL_BUFFSIZE as HCCL reads it.

HCCL takes digits only, at most ten of them and 32 bits, and at least 1, in MB. With anything else no process
group starts (EI0001). It is the tiling of the operators (A2, hierarchy) that keeps 16 bits of the number.

Source: hcomm 8958adbf03, src/legacy/ascend910/platform/common/externalinput.cc:1496 ParseCclBufferSize, sal.cc:541
IsAllDigit and sal.cc:185 SalStrToULong; ops-transformer, mc2/common/op_host/op_tiling/mc2_tiling_utils.h
GetMaxWindowSize.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ascend_moe.contract.limits import WINDOW_MB_DEFAULT

VARIABLE = "HCCL_BUFFSIZE"
DIGITS_MAX = 10
TILING_BITS = 16


class Configured(NamedTuple):
    """The buffer size that HCCL will use.

    mb: 0 where HCCL refuses the text. source: who set it: group, HCCL_BUFFSIZE, --have, default.
    refused: why HCCL starts no group with it. question: what a legal number makes one ask.
    """

    mb: int
    source: str
    refused: str = ""
    question: str = ""

    @property
    def surprise(self) -> str:
        """What differs from what was probably meant."""
        return self.refused or self.question


def read_hccl_buffsize(env: Mapping[str, str]) -> Configured:
    """HCCL_BUFFSIZE as HCCL reads it; unset: the default."""
    text = env.get(VARIABLE)
    return Configured(WINDOW_MB_DEFAULT, "default") if text is None else read_size(text, VARIABLE)


def read_size(text: str, source: str) -> Configured:
    """A size in MB as HCCL reads it: "512MB", "-1" and "" are refused, "1048576" is taken literally."""
    if len(text) <= 4 and text.isascii() and text.isdigit() and text[0] != "0":
        return Configured(int(text), source)
    digits = text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX
    mb = int(text) if digits else 0
    if not 1 <= mb < 2**32:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        refused = (
            f"HCCL refuses {shown!a} and starts no process group (EI0001): it takes digits only, at least 1, in "
            "MB"
        )
        return Configured(0, source, refused)
    question = ""
    if mb >= 2**TILING_BITS:
        kilobytes, megabytes = mb // 2**10, mb // 2**20
        meant = kilobytes if kilobytes < 2**TILING_BITS else max(megabytes, 1)
        question = (
            f"HCCL takes {text} literally, {mb / 2**10:.0f} GB for each of two buffers of a group, and the tiling of "
            f"the operators keeps {TILING_BITS} bits of it: MB, not KB or bytes? Did you mean {meant}"
        )
    return Configured(mb, source, "", question)
