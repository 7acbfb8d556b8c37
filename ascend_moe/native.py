"""Building C++ parts of the project with CMake into the user's cache.

A build happens in a directory of its own beside its target and is renamed into place when it is complete, under a
lock, so that any number of processes may start at once and none ever sees half of a build.

What lies in the cache is loaded into processes of this user, so nobody else may write there (`require_own`): neither
into the cache, nor into a part of it, nor through a symbolic link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

LIMIT_S: Final = 1800.0
"""How long a command of a build, or whoever holds a lock, may take; a build takes minutes."""
_SAY_AFTER_S: Final = 1.0
_LOOK_S: Final = 0.05


class BuildError(RuntimeError):
    """Nothing can be built or taken from the cache; one line says why. A command's output has been printed."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/ascend-moe``, as a rule ``~/.cache/ascend-moe``; perhaps not there yet.

    Raises BuildError where neither that variable nor the user's home is an absolute path.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # no HOME, and no such user
        base = Path(named) if named else Path.home() / ".cache"
        if base.is_absolute():
            return base / "ascend-moe"
    raise BuildError("no place for a cache: set HOME or XDG_CACHE_HOME to an absolute path")


def source_directory() -> Path:
    """The C++ sources: in an installed wheel inside the package, in a clone beside it.

    Raises BuildError when neither is there.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_kernels", package.parent / "kernels"):
        if (candidate / "CMakeLists.txt").is_file():
            return candidate
    raise BuildError("the C++ sources (kernels/) are not installed")


def find_tool(name: str) -> str | None:
    """An executable from PATH, or one that pip put beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def require_own(directory: Path) -> None:
    """Raises BuildError unless this user alone decides what is in a directory that exists."""
    try:
        found, parent = directory.lstat(), directory.parent.stat()
    except OSError as error:
        raise BuildError(f"{directory}: {error.strerror}") from None
    problem = ""
    if not stat.S_ISDIR(found.st_mode):
        problem = f"is a {'symbolic link' if stat.S_ISLNK(found.st_mode) else 'file'}"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, this is user {os.geteuid()}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"can be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    elif parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX:
        problem = "can be replaced by anybody"
    if problem:
        raise BuildError(
            f"{directory} {problem}: nothing is built or loaded there; remove it, or set XDG_CACHE_HOME"
        )


def make_own(directory: Path) -> None:
    """Makes a directory, and those around it, for this user alone. Raises BuildError where that is not to be had."""
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own(directory)
        directory.chmod(0o700)
    except OSError as error:
        raise BuildError(f"no cache: {directory}: {error.strerror}") from None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; ends with the process however it ends.

    Whoever waits for longer than a second says for whom; after `LIMIT_S` BuildError names the holder.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BuildError(f"the lock {path} cannot be opened: {error.strerror}") from None
    try:
        _lock(path, descriptor)
        with contextlib.suppress(OSError):  # a full disk keeps nobody from holding it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    began, said = time.monotonic(), False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
        except OSError as error:
            raise BuildError(f"the lock {path} cannot be had: {error.strerror}") from None
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        if waited > LIMIT_S:
            raise BuildError(f"{holder} has held the lock {path} for more than {LIMIT_S:g} s")
        if waited > _SAY_AFTER_S and not said:
            said = True
            text = f"ascend-moe: waiting for {holder}, which holds {path}"
            print(text, file=sys.stderr, flush=True)
        time.sleep(_LOOK_S)


def replace_directory(target: Path, build: Callable[[Path], Path]) -> None:
    """Put what ``build(scratch)`` returns, a directory inside scratch, in the place of target.

    The caller holds the lock of target; so what others began to build for it is of processes that are gone.
    """
    prefix = f"building-{target.name}-"
    for half_made in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(half_made, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as scratch:
        built = build(Path(scratch))
        built.chmod(0o700)
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        built.rename(target)


def output_of(command: Sequence[str]) -> bytes:
    """What a tool prints about itself. Raises BuildError when it does not run."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{' '.join(command)} does not run: {error}") from None


def run_build(command: Sequence[str], *, directory: Path | None = None) -> None:
    """Run a command; when it fails, print its output and raise BuildError. Nothing that it started outlives it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error.strerror}") from None
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            text = f"this command did not end within {LIMIT_S:g} s: {' '.join(command)}"
            raise BuildError(text) from None
        raise
    if process.returncode != 0:
        sys.stderr.write(output.decode(errors="replace"))
        raise BuildError(f"this command failed, see above: {' '.join(command)}")
