"""Which library torch_npu takes the two operators from: op-plugin's search, replayed without loading anything.

For each operator op-plugin asks for the newest generation it knows (``aclnnMoeDistributeDispatchV4``), then for older
ones, and takes the first that has both phases. Each name is looked for in this order:

1. ``op_api/lib/libcust_opapi.so`` below every entry of ``ASCEND_CUSTOM_OPP_PATH``;
2. the same below ``$ASCEND_OPP_PATH/vendors``, in the order of ``config.ini``;
3. CANN's own ``libopapi_*.so`` (the operators are in ``libopapi_transformer.so``) and ``libopapi.so``, which goes away
   after 2026-12-30.

Libraries of another owner are skipped in 1 and 2: a root process takes only root's, another process its own and
root's. The variables are read once, when torch_npu is imported. Source: Ascend/op-plugin,
``op_plugin/utils/op_api_common.cpp`` (``get_custom_lib_path``, ``checkOwner``) and ``op_api_common.h``
(``GetOpApiFuncAddr``); the owner rule was also seen at work with torch_npu 2.13.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ascend_moe.hardware.elf import exported_names
from ascend_moe.hardware.kernel_library import LIBRARY, MARK, OPP_VARIABLE, VENDOR

OPERATORS = ("dispatch", "combine")
NAME = re.compile(rb"aclnnMoeDistribute(Dispatch|Combine)V([2-9])\0")
ROOT = 0
CANN, CUSTOM = "CANN", "custom"


class Candidate(NamedTuple):
    """A library that op-plugin looks into; ``skipped`` says why it is passed over, if it is."""

    path: Path
    kind: str
    skipped: str = ""

    @property
    def ours(self) -> bool:
        """Whether it lies in a vendor directory of ours, or is a copy of ours elsewhere."""
        in_place = self.path.parts[-4] == VENDOR.name
        return self.kind == CUSTOM and (in_place or MARK in _exports(self.path))

    def generations(self, operator: str) -> set[int]:
        """The generations of an operator that it exports with both phases."""
        names = _exports(self.path)
        stem = f"aclnnMoeDistribute{operator.capitalize()}V"
        return {
            number
            for number in range(2, 10)
            if {f"{stem}{number}", f"{stem}{number}GetWorkspaceSize"} <= names
        }


class Choice(NamedTuple):
    """What torch_npu will call for one operator."""

    operator: str
    generation: int
    library: Candidate

    def __str__(self) -> str:
        whose = "ours" if self.library.ours else "not ours"
        return f"{self.operator} V{self.generation} of {self.library.path} ({whose})"


def candidates(env: Mapping[str, str]) -> list[Candidate]:
    """All libraries in the order of the search."""
    custom = [Path(entry) for entry in env.get(OPP_VARIABLE, "").split(":") if entry]
    found = [_custom(vendor / LIBRARY) for vendor in [*custom, *_vendors(env)]]
    home = env.get("ASCEND_HOME_PATH")
    own = sorted((Path(home) / "lib64").glob("libopapi*.so")) if home else []
    return [*(library for library in found if library), *(Candidate(path, CANN) for path in own)]


def choices(env: Mapping[str, str]) -> list[Choice]:
    """What torch_npu will call, by operator; an operator that is found nowhere is left out."""
    known = generations_of_torch_npu()
    libraries = [library for library in candidates(env) if not library.skipped]
    found = []
    for operator in OPERATORS:
        for generation in sorted(known.get(operator, ()), reverse=True):
            having = [one for one in libraries if generation in one.generations(operator)]
            if having:
                found.append(Choice(operator, generation, having[0]))
                break
    return found


@cache
def takes_ours() -> bool:
    """Whether torch_npu takes both operators from our library; asked once, as torch_npu reads the variables once."""
    return library_taken(os.environ) is not None


def library_taken(env: Mapping[str, str]) -> Path | None:
    """Our library, where torch_npu takes both operators from it; else None."""
    ours = [choice for choice in choices(env) if choice.library.ours]
    if [choice.operator for choice in ours] != list(OPERATORS):
        return None
    return ours[0].library.path


@cache
def generations_of_torch_npu() -> dict[str, set[int]]:
    """The generations that the installed torch_npu asks for, by operator; empty without torch_npu."""
    spec = importlib.util.find_spec("torch_npu")
    if spec is None or not spec.submodule_search_locations:
        return {}
    library = Path(next(iter(spec.submodule_search_locations))) / "lib" / "libtorch_npu.so"
    try:
        names = NAME.findall(library.read_bytes())
    except OSError:
        return {}
    known: dict[str, set[int]] = {}
    for operator, generation in names:
        known.setdefault(operator.decode().lower(), set()).add(int(generation))
    return known


def _custom(path: Path) -> Candidate | None:
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    return Candidate(path.resolve(), CUSTOM, _skipped(owner, os.getuid()))


def _skipped(owner: int, user: int) -> str:
    if owner == user or (user != ROOT and owner == ROOT):
        return ""
    return f"it belongs to user {owner} and this process to user {user}"


def _vendors(env: Mapping[str, str]) -> Iterator[Path]:
    if not env.get("ASCEND_OPP_PATH"):
        return
    folder = Path(env["ASCEND_OPP_PATH"]) / "vendors"
    try:
        lines = (folder / "config.ini").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("load_priority="):
            yield from (folder / name for name in line.removeprefix("load_priority=").split(","))
            return


@cache
def _exports(path: Path) -> frozenset[str]:
    try:
        return exported_names(path)
    except (OSError, ValueError):
        return frozenset()
