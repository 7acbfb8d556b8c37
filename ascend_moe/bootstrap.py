"""Importing torch and torch_npu where one of them, or CANN, may be missing.

torch loads every installed backend by itself. With the torch_npu wheel and no CANN that makes plain ``import torch``
fail (libhccl.so is not there), unless TORCH_DEVICE_BACKEND_AUTOLOAD is 0. Whether CANN is here is asked of the
dynamic loader, which also finds the libraries of the virtual NPU once they are loaded; a failed import of torch_npu
itself would leave half of it behind.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from types import ModuleType

from ascend_moe.hardware.cann import ASCENDCL

AUTOLOAD_VARIABLE = "TORCH_DEVICE_BACKEND_AUTOLOAD"
_CANN_LIBRARIES = (ASCENDCL, ("libhccl.so",))  # of each, one of the names


def import_torch() -> None:
    """Imports torch; keeps it from loading a torch_npu that cannot load, for this process and its children."""
    if "torch" not in sys.modules and _torch_npu_installed() and not _cann_loadable():
        os.environ.setdefault(AUTOLOAD_VARIABLE, "0")
    importlib.import_module("torch")


def import_torch_npu() -> bool:
    """Imports torch_npu if it is installed and can be imported here; returns whether it is imported."""
    if _torch_npu_loaded():
        return True
    if not (_torch_npu_installed() and _cann_loadable()):
        return False
    importlib.import_module("torch_npu")
    return True


def _torch_npu_loaded() -> bool:
    """Whether ``import torch_npu`` has succeeded, or somebody has put a module of his own there; not while it runs."""
    module = sys.modules.get("torch_npu")
    return module is not None and not _is_initializing(module)


def _is_initializing(module: ModuleType) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


def _torch_npu_installed() -> bool:
    try:
        return importlib.util.find_spec("torch_npu") is not None
    except ValueError:  # a module without a spec stands in its place
        return True


def _cann_loadable() -> bool:
    return all(any(map(_loadable, names)) for names in _CANN_LIBRARIES)


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
