"""The proof library over a copy of the kernels in which something is written otherwise: a build switch, or a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from . import simulator

KERNELS = Path(__file__).parents[1]
NO_COPIES = {
    "hierarchy/abi.h": (
        "constexpr bool kRelayCopies = true;",
        "constexpr bool kRelayCopies = false;",
    )
}
"""The build switch of docs/kernels-hierarchy.md, section 8, the other way."""


def build_variant(folder: Path, edits: Mapping[str, tuple[str, str]], compiler: str) -> Path:
    """A library with these edits (below ``kernels/device``: text, what replaces it), over the objects of hostsim."""
    simulator.library()
    for room in ("device", "hostsim", "proof"):
        shutil.copytree(KERNELS / room, folder / "kernels" / room)
    for name, (written, otherwise) in edits.items():
        path = folder / "kernels/device" / name
        text = path.read_text()
        if text.count(written) != 1:
            raise ValueError(f"{name} has {text.count(written)} times {written!r}, not once")
        path.write_text(text.replace(written, otherwise))
    built = folder / "libvariant.so"
    objects = sorted((simulator.BUILD / "hostsim").rglob("*.o"))
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-fno-gnu-unique"),
            *("-ffp-contract=off", "-Ikernels", "-Ikernels/hostsim", "kernels/proof/kernels.cpp"),
            *(*map(str, objects), "-o", str(built)),
        ],
        check=True,
        cwd=folder,
        timeout=600,
    )
    return built


@contextmanager
def variant(edits: Mapping[str, tuple[str, str]]) -> Iterator[None]:
    """Simulators of this process run such a library meanwhile. Sizes of windows stay those of the sources."""
    original = simulator.library
    with TemporaryDirectory() as folder:
        built = simulator.load(build_variant(Path(folder), edits, os.environ.get("CXX") or "c++"))
        simulator.library = lambda: built
        try:
            yield
        finally:
            simulator.library = original
