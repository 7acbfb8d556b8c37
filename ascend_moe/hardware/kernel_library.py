"""Our kernel library for the NPU: where it is installed and what it was built from.

``scripts/build_kernels npu-a2`` and ``npu-a3`` install a custom operator package, in the layout that op-plugin and CANN
know:

    ~/.cache/ascend-moe/npu-a3/                           or npu-a2
      built.json                                          what it was built from
      vendors/ascend_moe/op_api/lib/libcust_opapi.so      the library

torch_npu finds it when ``ASCEND_CUSTOM_OPP_PATH`` names the vendor directory at the moment torch_npu is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ascend_moe.contract.resolve import resolve_product
from ascend_moe.native import BuildError, cache_directory, require_own, source_directory

OPP_VARIABLE = "ASCEND_CUSTOM_OPP_PATH"
KERNELS_VARIABLE = "ASCEND_MOE_KERNELS"  # off, auto, require: kernels/op_api/group.h
VENDOR = Path("vendors/ascend_moe")
LIBRARY = Path("op_api/lib/libcust_opapi.so")
BUILT = "built.json"
PRESETS = {"A2": "npu-a2", "A3": "npu-a3"}  # of kernels/CMakePresets.json
MARK = "ascend_moe_library_version"  # a symbol that only our library exports
HOW_TO_BUILD = "where CANN is installed: python -m ascend_moe.hardware.build"
ROOMS = ("CMakeLists.txt", "CMakePresets.json", "device", "npu", "op_api")


def preset(product: str | None = None) -> str:
    """Which build it is: by the product given, else ASCEND_MOE_PRODUCT, else the NPU here, else that of A3.

    Raises ValueError where another chip is here.
    """
    return PRESETS[resolve_product(product).name]


def installation(product: str | None = None) -> Path:
    """Where the library is installed when it is."""
    return cache_directory() / preset(product)


def installed_vendor() -> Path | None:
    """The vendor directory for ASCEND_CUSTOM_OPP_PATH, or None when no library is installed for the product here.

    Raises BuildError when somebody else than this user may have put it there, or there is no cache.
    """
    try:
        directory = installation()
    except ValueError:  # no such product
        return None
    vendor = directory / VENDOR
    if not (vendor / LIBRARY).is_file():
        return None
    require_own(directory.parent)
    require_own(directory)
    return vendor


def built_from() -> dict[str, Any]:
    """What the installed library was built from; empty when that is unknown."""
    try:
        found = json.loads((installation() / BUILT).read_text())
    except (OSError, ValueError, BuildError):
        return {}
    return found if isinstance(found, dict) else {}


def source_key() -> str:
    """A hash of all sources that go into the library."""
    sources = source_directory()
    digest = hashlib.sha256()
    for room in ROOMS:
        found = sources / room
        for path in [found] if found.is_file() else sorted(found.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(sources)).encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def prepended(first: Path, rest: str | None) -> str:
    """A path variable with ``first`` in front and nowhere else."""
    others = [entry for entry in (rest or "").split(":") if entry and entry != str(first)]
    return ":".join([str(first), *others])


def exports(vendor: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that put the library before CANN's own."""
    return {OPP_VARIABLE: prepended(vendor, env.get(OPP_VARIABLE))}
