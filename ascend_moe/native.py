"""Building C++ parts of the project with CMake into the user's cache.

A build happens in a directory of its own beside its target and is renamed into place when it is complete, under a
lock, so that any number of processes may start at once and none ever sees half of a build.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class BuildError(RuntimeError):
    """A command of a build failed; its output has been printed."""


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/ascend-moe``, as a rule ``~/.cache/ascend-moe``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ascend-moe"


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; ends with the process however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_directory(target: Path, build: Callable[[Path], Path]) -> None:
    """Put what ``build(scratch)`` returns, a directory inside scratch, in the place of target.

    The caller holds the lock of target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=target.parent) as scratch:
        built = build(Path(scratch))
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        built.rename(target)


def run_build(command: Sequence[str], *, directory: Path | None = None) -> None:
    """Run a command; when it fails, print its output and raise BuildError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise BuildError(f"this command failed, see above: {' '.join(command)}")
