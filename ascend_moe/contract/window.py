"""How large the HCCL buffer is: HCCL_BUFFSIZE as HCCL reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ascend_moe.contract.limits import WINDOW_MB_DEFAULT

VARIABLE = "HCCL_BUFFSIZE"


class Configured(NamedTuple):
    """The buffer size that HCCL will use; source says who set it: group, HCCL_BUFFSIZE, default."""

    mb: int
    source: str
    surprise: str = ""


def read_hccl_buffsize(env: Mapping[str, str]) -> Configured:
    """HCCL_BUFFSIZE as HCCL reads it: the leading integer of the text, kept in 16 unsigned bits.

    Unset or not a number: the default. "512MB" is 512, "65536" is 0, "-1" is 65535; what differs
    from the text is explained in `surprise`.
    """
    text = env.get(VARIABLE)
    if text is None:
        return Configured(WINDOW_MB_DEFAULT, "default")
    if len(text) <= 4 and text.isascii() and text.isdigit() and text[0] != "0":
        return Configured(int(text), VARIABLE)
    number = re.match(r"\s*([+-]?0*[0-9]{1,10})(?![0-9])", text)
    if number is None or not -(2**31) <= int(number[1]) < 2**31:
        surprise = f"HCCL cannot read {text!a} as a number and uses {WINDOW_MB_DEFAULT} MB"
        return Configured(WINDOW_MB_DEFAULT, VARIABLE, surprise)
    mb = int(number[1]) % 2**16
    if text == str(mb) and mb:
        return Configured(mb, VARIABLE)
    return Configured(mb, VARIABLE, f"HCCL reads {text!a} as {mb} MB")
