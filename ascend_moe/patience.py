"""How long a rank waits for its peers, on any path: ``ASCEND_MOE_TIMEOUT_S``."""

from __future__ import annotations

import os
from typing import Final

TIMEOUT_VARIABLE: Final = "ASCEND_MOE_TIMEOUT_S"
DEFAULT_TIMEOUT_S: Final = 120.0


def timeout_seconds() -> float:
    """``ASCEND_MOE_TIMEOUT_S``, or 120. Raises ValueError for anything but a positive number."""
    text = os.environ.get(TIMEOUT_VARIABLE)
    if text is None:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds < float("inf"):
        raise ValueError(f"{TIMEOUT_VARIABLE} must be a positive number of seconds, got {text!r}")
    return seconds


def patience() -> float:
    """The same, and 120 for what is no such number: a call that is refused for it is still told to the peers."""
    try:
        return timeout_seconds()
    except ValueError:
        return DEFAULT_TIMEOUT_S
