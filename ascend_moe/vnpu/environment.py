"""The environment variables of a process that sees the virtual NPU.

They are what CANN's ``set_env.sh`` would set, with the home of the stand-in in place of CANN's, plus the
choices of the user (product, number of devices and of servers) and a marker.
"""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Mapping
from pathlib import Path

from ascend_moe.hardware.cann import STAND_IN, cann_home
from ascend_moe.hardware.kernel_library import prepended
from ascend_moe.vnpu.build import CANN_VERSION, VirtualNpu
from ascend_moe.vnpu.errors import VirtualNpuError
from ascend_moe.vnpu.servers import SERVERS

MARKER = STAND_IN  # set to the home of the stand-in in every process that uses it
DEVICES = "ASCEND_MOE_VNPU_DEVICES"
CANN = "ASCEND_MOE_VNPU_CANN"
CHECKS = (
    "ASCEND_MOE_VNPU_CHECKS"  # 0: the simulator judges hardly anything (op_api/host/launch.cpp)
)
CANN_VERSIONS = ("8.5.0", "9.0.0", "9.1.0")  # kernels/standin/ascendcl/version.cpp
CHILD_HOOK = Path(__file__).parent / "child"
MAX_DEVICES = 1024


def variables(
    built: VirtualNpu,
    current: Mapping[str, str],
    *,
    product: str | None = None,
    devices: int | None = None,
    servers: int | None = None,
) -> dict[str, str]:
    """What to set, given the environment as it is.

    Variables that the user may have set for reasons of his own are extended, not replaced. Raises
    VirtualNpuError when one names a CANN that is not known.
    """
    changes = {
        MARKER: str(built.home),
        "ASCEND_HOME_PATH": str(built.home),
        "ASCEND_OPP_PATH": str(built.home / "opp"),
        "ASCEND_CUSTOM_OPP_PATH": prepended(built.vendor, current.get("ASCEND_CUSTOM_OPP_PATH")),
        "LD_LIBRARY_PATH": prepended(built.home / "lib64", current.get("LD_LIBRARY_PATH")),
        "PATH": prepended(built.home / "bin", current.get("PATH")),
        "PYTHONPATH": prepended(CHILD_HOOK, current.get("PYTHONPATH")),
        CANN: played_cann(current),
    }
    if product is not None:
        changes["ASCEND_MOE_PRODUCT"] = product
    if devices is not None:
        changes[DEVICES] = str(devices)
    if servers is not None:
        changes[SERVERS] = str(servers)
    return changes


def played_cann(current: Mapping[str, str]) -> str:
    """The version of CANN that is played: which functions of HCCL there are, and what they answer.

    Raises VirtualNpuError for one that is not known.
    """
    version = current.get(CANN) or CANN_VERSION
    if version not in CANN_VERSIONS:
        known = ", ".join(CANN_VERSIONS)
        raise VirtualNpuError(f"{CANN}={version} is none of the versions that are played: {known}")
    return version


def refuse_beside_real_cann(current: Mapping[str, str]) -> None:
    """Raise VirtualNpuError on a machine with a CANN of its own: its NPU must not be hidden by accident."""
    if current.get(MARKER):
        return
    home = cann_home(current)
    library = None if home is not None else ctypes.util.find_library("ascendcl")
    if home is None and library is None:
        return
    raise VirtualNpuError(
        f"CANN is installed here ({home or library}); to hide it behind the virtual NPU, "
        "say so: ascend-moe run --force, activate(force=True)"
    )


def machine(product: str | None, devices: int | None, servers: int | None) -> str:
    """What is played, as people read it."""
    split = "" if servers is None else f" on {servers} server{'s' if servers > 1 else ''}"
    return f"{product}, {devices} devices{split}"


def announcement(product: str, devices: int, servers: int | None) -> str:
    """The line that says, once per run, that no hardware is involved."""
    unchecked = ", kernels unchecked" if os.environ.get(CHECKS) == "0" else ""
    return (
        f"ascend-moe: virtual NPU ({machine(product, devices, servers)}{unchecked}); "
        "nothing here ran on an Ascend device"
    )
