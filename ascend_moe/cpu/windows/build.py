"""How ``native/`` becomes the library of the CPU operators: by the package's build (``setup.py``), never at run time.

Only the standard library is needed here. ``CXX`` names the compiler, one that targets another machine included;
without it the first of `COMPILERS` that is there is taken. A wheel holds the library and not its sources; where the
sources are, in a clone, the library says of which ones it was made (`digest`).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).with_name("native")
LIBRARY: Final = Path(__file__).with_name("libascend_moe_cpu.so")
COMPILERS: Final = ("g++", "c++", "clang++")
FLAGS: Final = (
    *("-std=c++17", "-O3", "-fPIC", "-shared"),
    # The bits of the results: no fused multiply-add. The other two change no result.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)


def compiler() -> list[str] | None:
    """The words of its command; None when there is none."""
    words = shlex.split(os.environ.get("CXX", ""))
    if words:
        return words if shutil.which(words[0]) else None
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    return [found] if found else None


def command(compiler: Sequence[str], library: Path) -> list[str]:
    """The one command that makes the library."""
    made_of = f"-DMOE_SOURCES={digest()}"
    return [*compiler, *FLAGS, made_of, str(SOURCES / "windows.cpp"), "-o", str(library)]


def digest() -> int:
    """A number of 63 bits that changes with the sources and the flags."""
    found = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.iterdir()):
        found.update(source.name.encode() + source.read_bytes())
    return int.from_bytes(found.digest()[:8], "big") >> 1
