"""Files that a user names, opened for reading: a named pipe is waited for, but not for ever."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

PIPE_S = 30.0
"""How long a pipe may take until something comes out of it."""


def open_input(path: Path) -> BinaryIO:
    """The file as bytes. Raises OSError when it cannot be opened, or is a pipe into which nobody writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(PIPE_S * 1000):
                text = f"nothing came out of this pipe for {PIPE_S:g} s"
                raise OSError(errno.ETIMEDOUT, text)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
