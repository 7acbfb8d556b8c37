"""Drop-in for torch_npu's MoE dispatch and combine: every documented rule checked, the same results on CPU.

Importing this package imports neither torch nor torch_npu, touches no device and starts no thread; the first access
of a name that needs torch does that. See README.md for an example and docs/ for the rules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ascend_moe import reference
    from ascend_moe.api import (
        install,
        npu_moe_distribute_combine_v2,
        npu_moe_distribute_dispatch_v2,
        register,
        uninstall,
    )
    from ascend_moe.contract.buffsize import BuffSize
    from ascend_moe.contract.check import check_combine, check_dispatch
    from ascend_moe.contract.errors import ConstraintError, PeerError, Violation
    from ascend_moe.cpu.distributed.group import hccl_comm_name
    from ascend_moe.cpu.windows.expert_outputs import empty_expert_outputs
    from ascend_moe.shrinking import confirm, missing_ranks, shrink
    from ascend_moe.sizing.deployment import required_hccl_buffsize

__version__ = "0.1.0"

# Where each public name lives. Names of the first group need torch; the others do not.
_NEEDS_TORCH = {
    "npu_moe_distribute_dispatch_v2": "ascend_moe.api",
    "npu_moe_distribute_combine_v2": "ascend_moe.api",
    "install": "ascend_moe.api",
    "uninstall": "ascend_moe.api",
    "register": "ascend_moe.api",
    "empty_expert_outputs": "ascend_moe.cpu.windows.expert_outputs",
    "shrink": "ascend_moe.shrinking",
    "confirm": "ascend_moe.shrinking",
    "missing_ranks": "ascend_moe.shrinking",
    "hccl_comm_name": "ascend_moe.cpu.distributed.group",
    "reference": "ascend_moe.reference",
}
_TORCH_FREE = {
    "check_dispatch": "ascend_moe.contract.check",
    "check_combine": "ascend_moe.contract.check",
    "ConstraintError": "ascend_moe.contract.errors",
    "PeerError": "ascend_moe.contract.errors",
    "Violation": "ascend_moe.contract.errors",
    "required_hccl_buffsize": "ascend_moe.sizing.deployment",
    "BuffSize": "ascend_moe.contract.buffsize",
}
__all__ = [
    "BuffSize",
    "ConstraintError",
    "PeerError",
    "Violation",
    "check_combine",
    "check_dispatch",
    "confirm",
    "empty_expert_outputs",
    "hccl_comm_name",
    "install",
    "missing_ranks",
    "npu_moe_distribute_combine_v2",
    "npu_moe_distribute_dispatch_v2",
    "reference",
    "register",
    "required_hccl_buffsize",
    "shrink",
    "uninstall",
]


def __getattr__(name: str) -> object:
    if name in _NEEDS_TORCH:
        from ascend_moe.bootstrap import import_torch

        import_torch()
        module = importlib.import_module(_NEEDS_TORCH[name])
    elif name in _TORCH_FREE:
        module = importlib.import_module(_TORCH_FREE[name])
    else:
        raise AttributeError(f"module 'ascend_moe' has no attribute {name!r}")
    value = module if module.__name__ == f"ascend_moe.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
