"""The standard streams as a shell may hand them over: closed, full, or with nobody at the other end."""

from __future__ import annotations

import errno
import os
import sys
from typing import BinaryIO


def standard_input() -> BinaryIO:
    """Standard input as bytes; OSError if it is closed (``<&-``)."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer


def require_output() -> None:
    """OSError if standard output is closed (``>&-``): print would drop every answer without a word.

    A closed standard error becomes one that nobody reads: print would write to standard output instead.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")


def give_up_output() -> None:
    """What is still in Python's buffer goes nowhere: at its end Python would fail once more to write it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
