"""A group in several servers of A2 that runs our full mesh kernels: ``docs/kernels-mesh.md``.

As ``servers.py`` and ``server_programs.py`` for hierarchy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor

from .arguments import parameters, waits
from .cards import CardGroup
from .execution import dispatch_difference, same_bits
from .failures import Record
from .group import Combined, Dispatched, output_shapes
from .programs import Layers, Program, Step, with_layers
from .servers import ServerGroup, execute_on_servers
from .shapes import Shape, random_shape_a2
from .simulator import Simulator, library

OUTPUTS = (
    "expand_x",
    "dynamic_scales",
    "assist_info_for_combine",
    "expert_token_nums",
    "ep_recv_counts",
)


class MeshGroup(ServerGroup):
    """The ranks of one EP group in several servers, with queue pairs between all of different servers."""

    kernels = "mesh"

    def _linked(self, rank: int, peer: int) -> bool:
        return CardGroup._linked(self, rank, peer)

    def _dispatch(self, rank: int, call: Mapping[str, Any]) -> Dispatched:
        shapes = output_shapes(call)
        given = parameters("dispatch", call)
        given.waits = waits(call, self.product)
        given.capacity = shapes["expand_x"].shape[0]
        addresses = {
            name: self.simulator.alloc(rank, max(like.numel() * like.element_size(), 1), name)
            for name, like in shapes.items()
        }
        if rank in self.absent:
            return Dispatched(addresses, shapes)
        workspace = max(library().moe_dispatch_workspace(ctypes.byref(given)), 1)
        arguments = [
            self.contexts[rank],
            *(
                self._tensor(rank, call[name], name)
                for name in ("x", "expert_ids", "scales", "x_active_mask")
            ),
            0,  # elastic_info
            *(addresses[name] for name in OUTPUTS),
            0,  # tp_recv_counts
            self.kept.address(rank, call["performance_info"], "performance_info"),
            self.simulator.alloc(rank, workspace, "workspace"),
            *self._by_value(given),
        ]
        launch = self._launch(rank, "ascend_moe_mesh_dispatch", arguments)
        return Dispatched(addresses, shapes, launch)

    def _combine(self, rank: int, call: Mapping[str, Any], handle: Dispatched) -> Combined:
        given = parameters("combine", call)
        given.waits = waits(call, self.product)
        out = torch.empty(given.batch, given.hidden, dtype=call["expand_x"].dtype)
        address = self.simulator.alloc(rank, out.numel() * out.element_size(), "combine out")
        if rank in self.absent:
            return Combined(address, out)

        def tensor(name: str) -> int:
            return self._tensor(rank, call[name], name)

        arguments = [
            self.contexts[rank],
            tensor("expand_x"),
            tensor("expert_ids"),
            handle.addresses["assist_info_for_combine"],
            handle.addresses["ep_recv_counts"],
            tensor("expert_scales"),
            0,  # tp_send_counts
            tensor("x_active_mask"),
            *(0, 0),  # shared_expert_x, elastic_info
            tensor("ori_x"),
            *(0, 0, 0),  # of const experts
            address,
            self.kept.address(rank, call["performance_info"], "performance_info"),
            0,  # workspace
            *self._by_value(given),
        ]
        return Combined(address, out, self._launch(rank, "ascend_moe_mesh_combine", arguments))

    @staticmethod
    def step_of(record: Record, program: Program) -> int:
        """Launches of both operators are counted together."""
        return max(record.epoch - 1, 0)

    @staticmethod
    def compare(simulator: Simulator, step: Step, rank: int, result: Any) -> str:
        """What differs from the oracle, or an empty string; the handle is a table of our own."""
        if step.op == "combine":
            content, written = simulator.get(result.address, result.shape)
            if not written.all():
                return f"{int((~written).sum())} elements of the output were not written"
            return "" if same_bits(content, step.expected[rank]) else "the output differs"
        found = {
            name: simulator.get(result.addresses[name], like)
            for name, like in result.shapes.items()
        }
        call = step.calls[rank]
        handle, written = found.pop("assist_info_for_combine")
        places = places_of(call)
        if not written[: len(places)].all() or written[len(places) :].any():
            return "the handle was not written as far as it goes"
        if not torch.equal(handle[: len(places)][places >= 0], places[places >= 0]):
            return "the handle differs"
        return dispatch_difference(found, step.expected[rank], call)


def places_of(call: Mapping[str, Any]) -> Tensor:
    """Of every active token's pairs: where it is among the pairs for that rank, by expert and token; -1: not sent."""
    ids, mask = call["expert_ids"], call.get("x_active_mask")
    if mask is not None and mask.dim() == 1:
        ids = ids[: int(mask.sum())]
    sent = ids < call["moe_expert_num"]
    if mask is not None and mask.dim() == 2:
        sent = sent & mask
    ids, sent = ids.flatten(), sent.flatten()
    places = torch.full(ids.shape, -1, dtype=torch.int32)
    local = call["moe_expert_num"] // call["ep_world_size"]
    for rank in range(call["ep_world_size"]):
        of_rank = torch.where(sent & (ids // local == rank))[0]
        order = torch.argsort(ids[of_rank], stable=True)
        places[of_rank[order]] = torch.arange(len(order), dtype=torch.int32)
    return places


def mesh_program(name: str, shape: Shape, seed: int, order: str = "dc") -> Program:
    """As ``layer_program``."""
    return with_layers(Program(name, shape.contract, shape.product), Layers(shape, seed), order)


execute_mesh = partial(execute_on_servers, group_type=MeshGroup)
"""One run in windows full of old data."""


def random_mesh_shape(random: Random) -> Shape:
    """A legal shape of 2 to 8 servers, or of two with few ranks.

    Windows of many ranks are large, so these get short rows.
    """
    shape = random_shape_a2(random)
    ranks = random.choice((4, 6, 16, 16, 16, 32, 32, 64))
    few = ranks <= 16
    local_experts = min(shape.local_experts, 7 if few else 3)
    hidden = random.choice((32, 64, 96, 160, 224, 1024, 2048) if few else (32, 64, 96))
    return replace(
        shape,
        ranks=ranks,
        hidden=hidden,
        max_batch=min(shape.max_batch, 4 if few else 2),
        local_experts=local_experts,
        topk=min(shape.topk, 16 if few else 6, local_experts * ranks),
    )
