"""The two operators on this rank's CPU tensors: check, agree, exchange, lay out.

These functions are what the dispatcher calls for CPU tensors, whatever the caller went through (``ascend_moe``,
``torch_npu`` with ``install()``, ``torch.ops.npu``, a compiled graph), so every check that must never be skipped is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.agreement import disagreements, statement
from ascend_moe.contract.check import executor_violations, header
from ascend_moe.contract.errors import ConstraintError, Violation
from ascend_moe.contract.handle import handle_violations, rows_received
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import PARAMETERS, with_defaults
from ascend_moe.cpu import combine as combining
from ascend_moe.cpu import dispatch as dispatching
from ascend_moe.cpu.exchange import Exchange, PeerError, Statement
from ascend_moe.cpu.group import membership_violations, resolve
from ascend_moe.cpu.wire import unpack


def dispatch(**arguments: Any) -> tuple[Tensor, ...]:
    """``npu_moe_distribute_dispatch_v2`` on CPU tensors; keywords and results are the operator's."""
    call = _Call("dispatch", arguments)
    world, values = call.world, call.values
    pairs = dispatching.leaving(world, values)
    send_counts = torch.bincount(pairs.destination, minlength=world.ep_world_size).tolist()
    receive_counts = call.agree(send_counts)
    incoming = call.ep.rows(dispatching.outgoing(values, pairs), send_counts, receive_counts)
    own = dispatching.arrange(world, values, incoming, receive_counts)
    peer = None
    if call.tp is not None:
        peer = _allgather(call, own)
    return dispatching.lay_out(world, values, call.product, own, peer)
