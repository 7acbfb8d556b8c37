"""Which Ascend chip is here: from torch_npu if the process has it loaded, else from the PCI bus."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ascend_moe.hardware.cann import ASCENDCL

HUAWEI = "0x19e5"
CHIP_OF_PCI_DEVICE = {
    "0xd500": "Ascend310P",
    "0xd801": "Ascend910",
    "0xd802": "Ascend910B",
    "0xd803": "Ascend910_93",
    "0xd806": "Ascend950",
}
PRODUCT_OF_CHIP = {"Ascend910B": "A2", "Ascend910_93": "A3"}
SERVES_950 = (
    "Ascend 950 has other limits, windows and data types, and is served by CANN's own operators, by ElasticBuffer "
    "of cann_ops_transformer and by DeepEP-Ascend"
)


class Present(NamedTuple):
    """The chip that was found and the product it is."""

    product: str
    chip: str


@lru_cache(maxsize=1)
def present_product() -> Present | None:
    """The product of the NPU here, or None without one.

    Raises ValueError for an Ascend chip that these operators do not run on.
    """
    chip = _chip_of_torch_npu() or chip_on_pci_bus(Path("/sys/bus/pci/devices"))
    if chip is None:
        return None
    product = product_of_chip(chip)
    if product is None:
        raise ValueError(
            f"{other_chip(chip)}; set ASCEND_MOE_PRODUCT to judge calls for one of them"
        )
    return Present(product, chip)


def other_chip(chip: str) -> str:
    """Why a chip is refused, and what serves it where that is known."""
    reason = f"{chip} is neither A2 (Ascend910B) nor A3 (Ascend910_93)"
    if chip.startswith("Ascend950"):
        return f"{reason}; {SERVES_950}"
    return reason


def product_of_chip(chip: str) -> str | None:
    """A3 for a full chip name such as Ascend910_9382, None for chips without the operators."""
    for prefix, product in PRODUCT_OF_CHIP.items():
        if chip.startswith(prefix):
            return product
    return None


def _chip_of_torch_npu() -> str | None:
    """What CANN calls the chip. torch_npu's own get_device_name would open a device."""
    npu = getattr(sys.modules.get("torch_npu"), "npu", None)
    if npu is None or not npu.is_available():
        return None
    for library in ASCENDCL:
        try:
            soc_name = ctypes.CDLL(library).aclrtGetSocName
        except (OSError, AttributeError):
            continue
        soc_name.restype = ctypes.c_char_p
        name: bytes | None = soc_name()
        return name.decode("ascii", "replace") if name else None
    return None


def chip_on_pci_bus(devices: Path) -> str | None:
    """The first Ascend chip among the PCI devices, by vendor and device id."""
    try:
        entries = sorted(devices.iterdir())
    except OSError:
        return None
    chips = (_chip_of_pci_device(entry) for entry in entries)
    return next((chip for chip in chips if chip is not None), None)


def _chip_of_pci_device(entry: Path) -> str | None:
    try:
        if (entry / "vendor").read_text().strip() != HUAWEI:
            return None
        return CHIP_OF_PCI_DEVICE.get((entry / "device").read_text().strip())
    except OSError:
        return None
