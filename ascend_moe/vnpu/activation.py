"""Put the stand-in in torch_npu's way, in this process and in those it will start."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from ascend_moe.vnpu import torchair_native
from ascend_moe.vnpu.build import virtual_npu
from ascend_moe.vnpu.environment import (
    DEVICES,
    MARKER,
    MAX_DEVICES,
    announcement,
    played_cann,
    refuse_beside_real_cann,
    variables,
)
from ascend_moe.vnpu.errors import VirtualNpuError
from ascend_moe.vnpu.servers import SERVERS, server_count

PRODUCTS = ("A2", "A3")
# Each library before those that need it; torch_npu finds them loaded, by their names.
LIBRARIES = (
    "libascendcl.so",
    "libacl_op_compiler.so",
    "libhccl.so",
    "libhcomm.so",
    "libnnopbase.so",
    "libopapi.so",
    "libge_runner.so",
    "libgraph.so",
    "libacl_tdt_channel.so",
    "libatb.so",
)


def is_active() -> bool:
    """Whether this process sees the virtual NPU."""
    return MARKER in os.environ


def activate(
    product: str | None = None,
    devices: int | None = None,
    servers: int | None = None,
    *,
    force: bool = False,
) -> None:
    """Make ``import torch_npu`` find the virtual NPU, in this process and in those it starts.

    Call it before torch_npu is imported; torch itself may be loaded already. A second call does nothing.

    Args:
        product: "A2" or "A3"; default ASCEND_MOE_PRODUCT, else A3.
        devices: how many devices torch.npu.device_count() shows; default 16.
        servers: over how many servers they are split evenly, in order; default ASCEND_MOE_VNPU_SERVERS, else full
            ones on A2, one super-pod on A3.

        force: also on a machine with a real CANN.

    Raises:
        VirtualNpuError: torch_npu, g++ or cmake is missing, a real CANN is here, the devices cannot be
            split so, or torch_npu has been imported before.
    """
    if is_active():
        prepare_process(Path(os.environ[MARKER]))
        return
    if "torch_npu" in sys.modules:
        raise VirtualNpuError("torch_npu has been imported; activate the virtual NPU before that")
    changes = environment_of_run(product, devices, servers, force=force)
    os.environ.update(changes)
    prepare_process(Path(changes[MARKER]))


def environment_of_run(
    product: str | None,
    devices: int | None,
    servers: int | None = None,
    *,
    force: bool = False,
) -> dict[str, str]:
    """Check the request, build if necessary, announce, and return the variables to set."""
    product = product or os.environ.get("ASCEND_MOE_PRODUCT", "").upper() or "A3"
    if product not in PRODUCTS:
        raise VirtualNpuError(f"product {product!r} is not one of {', '.join(PRODUCTS)}")
    devices = _device_count(devices, os.environ.get(DEVICES))
    servers = server_count(servers, os.environ.get(SERVERS), product=product, devices=devices)
    if not force:
        refuse_beside_real_cann(os.environ)
    played_cann(os.environ)  # before a build
    changes = variables(
        virtual_npu(), os.environ, product=product, devices=devices, servers=servers
    )
    print(announcement(product, devices, servers), file=sys.stderr, flush=True)
    return changes


def _device_count(wanted: int | None, variable: str | None) -> int:
    """What was asked for, else what the variable says, else one server of A3."""
    text = str(wanted) if wanted is not None else variable or "16"
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_DEVICES:
        return int(text)
    source = "" if wanted is not None else f"{DEVICES}="
    raise VirtualNpuError(f"{source}{text} devices: between 1 and {MAX_DEVICES} are possible")


def prepare_process(home: Path) -> None:
    """Load the stand-in libraries and offer torchair its native half."""
    for name in LIBRARIES:
        ctypes.CDLL(str(home / "lib64" / name), mode=ctypes.RTLD_GLOBAL)
    torchair_native.install()
