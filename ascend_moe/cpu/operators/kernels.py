"""The two operators on this rank's CPU tensors: check, agree, exchange, lay out.

The dispatcher calls these for CPU tensors whatever the caller went through (``ascend_moe``, ``torch_npu`` with
``install()``, ``torch.ops.npu``, a compiled graph), so every check that must never be skipped is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.errors import ConstraintError, PeerError
from ascend_moe.contract.signature import attributes_of, tensors_of, with_defaults
from ascend_moe.cpu.distributed.peers import state_named
from ascend_moe.cpu.operators import combine as combining
from ascend_moe.cpu.operators import dispatch as dispatching
from ascend_moe.cpu.operators import hierarchy
from ascend_moe.cpu.operators.elastic import Left, shrunk_for
from ascend_moe.cpu.operators.refusals import refuse, schema_violations
from ascend_moe.cpu.operators.session import Session
from ascend_moe.cpu.operators.wire import unpack
from ascend_moe.cpu.windows.areas import NoWindow
from ascend_moe.cpu.windows.repeated.door import again, remember


def dispatch(**arguments: Any) -> tuple[Tensor, ...]:
    """``npu_moe_distribute_dispatch_v2`` on CPU tensors: the operator's keywords, its seven results."""
    outputs: tuple[Tensor, ...] = run("dispatch", with_defaults("dispatch", arguments))
    return outputs


def combine(**arguments: Any) -> Tensor:
    """``npu_moe_distribute_combine_v2`` on CPU tensors: the operator's keywords, its one result."""
    output: Tensor = run("combine", with_defaults("combine", arguments))
    return output


def run(op: str, call: Mapping[str, Any]) -> Any:
    """A call with every keyword."""
    shrunk = None if call["elastic_info"] is None else shrunk_for(call)
    group = call["group_ep"] if shrunk is None else shrunk.group.group_name
    turn, tp = _turn(group), call["tp_world_size"]
    with turn, _turn(call["group_tp"] if isinstance(tp, int) and tp == 2 else None):
        try:
            if shrunk is None:
                return _in_turn(op, call)
            left = Left(op, call, shrunk)
            outputs = _in_turn(op, left.call, left)
            left.finish()
            return outputs
        except (ConstraintError, PeerError):
            raise
        except Exception as error:
            if getattr(turn, "begun", False):
                raise
            refuse(op, {**call, "group_ep": group}, error)


def _turn(group: Any) -> AbstractContextManager[None]:
    """Of the calls on a group; who names none waits for nobody."""
    state = state_named(group) if isinstance(group, str) else None
    return nullcontext() if state is None else state.turn


def _in_turn(op: str, call: Mapping[str, Any], left: Left | None = None) -> Any:
    """left: the call is that of a group of survivors, made of one on the whole group."""
    tensors, attributes = tensors_of[op](call), attributes_of[op](call)
    if left is None or left.is_known:
        outputs = again(op, tensors, attributes)
        if outputs is not None:
            return outputs
    if schema_violations(op, call):
        raise TypeError
    session = Session(op, call, left)
    fast = session.fast_call(call)
    if fast is not None:
        with suppress(NoWindow):
            outputs = fast.first(tensors)
            if outputs is None:
                raise RuntimeError(f"the rules accept this {op}, its own checks do not: {call}")
            if session.may_be_remembered:
                remember(op, tensors, attributes, fast)
            return outputs
        session = Session(op, call, left)  # over torch.distributed from now on
    return _dispatch(session) if op == "dispatch" else _combine(session)


def _dispatch(session: Session) -> tuple[Tensor, ...]:
    with session.failures_reach_the_tp_peer():
        world, call, servers = session.world, session.call, session.servers
        if servers is not None:
            call = servers.in_order_of_sum(call)
        pairs = dispatching.leaving(world, call)
        leaving = torch.bincount(pairs.destination, minlength=world.ep_world_size).tolist()
        outgoing = dispatching.outgoing(call, pairs)
        arriving = session.agree(leaving)
        incoming = session.ep.rows(outgoing, leaving, arriving)
        own = dispatching.arrange(world, call, incoming, arriving)
        session.finish()
    peer = _allgather(session, own) if session.tp else None
    outputs = dispatching.lay_out(call, own, peer, session.specs)
    if servers is not None:
        hierarchy.write_handle(own, outputs)
    else:
        dispatching.write_handle(world, call, session.product, own, outputs)
    return outputs


def _combine(session: Session) -> Tensor:
    world, call, servers = session.world, session.call, session.servers
    rows = combining.own_rows(world, call)
    if session.tp:
        rows = _reduce_scatter(session, rows)
    with session.failures_reach_the_tp_peer():
        if servers is None:
            product = session.product
            homeward = combining.homeward(world, call, product, rows)
        else:
            product = "A3"  # rows name token and place
            homeward = hierarchy.homeward(world, call, rows)
        arriving = session.agree(homeward.counts)
        incoming = session.ep.rows(homeward.buffer, homeward.counts, arriving)
        arrived = unpack(incoming, rows.shape[1], rows.dtype)
        home = combining.find_rows(world, call, product, arrived, arriving)
        session.finish()
    session.require(home.violations)
    if servers is not None:
        return hierarchy.weighted_sum(world, servers, call, arrived, arriving, home)
    return combining.weighted_sum(world, call, arrived.elements, home)


def _allgather(session: Session, own: dispatching.Arrived) -> dispatching.Arrived:
    """The TP peer's rows, in the peer's own order. With TP a rank has one expert, so that word carries the source."""
    own.rows.place[:, 2] = own.source.int()
    count, peer_count = len(own.source), session.agree_with_tp_peer(len(own.source))
    incoming = session.to_tp_peer(own.rows.buffer, count, peer_count)
    rows = unpack(incoming, own.rows.elements.shape[1], own.rows.elements.dtype)
    source = rows.place[:, 2].long()
    counts = torch.bincount(source, minlength=session.world.ep_world_size)
    return dispatching.Arrived(rows, source, counts[None])


def _reduce_scatter(session: Session, rows: Tensor) -> Tensor:
    """Adds the TP peer's copy of every own row; the copies of the peer's rows lie behind the own ones."""
    count, peer_count = len(rows), session.agree_with_tp_peer(len(rows))
    copies = session.call["expand_x"][count : count + peer_count].contiguous().view(torch.uint8)
    incoming = session.to_tp_peer(copies, peer_count, count)
    return combining.add_tp_copy(rows, incoming.view(rows.dtype))
