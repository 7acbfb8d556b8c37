"""The two implementations and the environment of their processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ascend_moe.hardware.cann import STAND_IN
from ascend_moe.hardware.kernel_library import HOW_TO_BUILD, exports, installed_vendor

OURS, STOCK = "ours", "stock"
MODE = {OURS: "require", STOCK: "off"}
ROOT = Path(__file__).resolve().parents[2]


class NotPossible(Exception):
    """What is missing, in one line."""


def base_environment(
    virtual: int | None, phases: Sequence[str], product: str, servers: int = 1
) -> dict[str, str]:
    """Of all ranks: the virtual NPU where it is asked for, else CANN and our library.

    Raises NotPossible when our library is to be played and not installed, or without the virtual NPU that was
    asked for.
    """
    changes: Mapping[str, str] = {}
    if virtual is not None and STAND_IN not in os.environ:
        from ascend_moe.vnpu import VirtualNpuError
        from ascend_moe.vnpu.activation import environment_of_run

        try:
            changes = environment_of_run(
                product, max(virtual, 16), servers if servers > 1 else None
            )
        except VirtualNpuError as error:
            raise NotPossible(str(error)) from None
    elif STAND_IN not in os.environ:
        vendor = installed_vendor()
        if vendor is not None:
            changes = exports(vendor, os.environ)
        elif OURS in phases:
            raise NotPossible(f"our kernel library is not built here; {HOW_TO_BUILD}")
    environment = {**os.environ, **changes}
    paths = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]
    paths += filter(None, [environment.get("PYTHONPATH")])
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def environment_of(phase: str, base: Mapping[str, str], window_mb: int) -> dict[str, str]:
    """Of the ranks of one phase."""
    return {
        **base,
        "ASCEND_MOE_KERNELS": MODE[phase],
        "HCCL_BUFFSIZE": os.environ.get("HCCL_BUFFSIZE", str(window_mb)),
    }


def is_virtual(environment: Mapping[str, str]) -> bool:
    return STAND_IN in environment
