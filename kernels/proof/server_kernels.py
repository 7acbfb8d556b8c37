"""The two sets of kernels for several servers, and what proves them: sizes, step orders, queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch

from .arguments import Parameters
from .cards import Wire
from .mesh import MeshGroup, mesh_program, random_mesh_shape
from .programs import Program
from .server_programs import SMALL, random_server_shape, server_program
from .servers import ServerGroup
from .shapes import Shape


@dataclass(frozen=True)
class Kernels:
    """Those of one directory below ``kernels/device``."""

    group_type: type[ServerGroup]
    program: Callable[..., Program]
    random_shape: Callable[[Random], Any]
    schedules: tuple[tuple[Any, int, str], ...]
    """Shapes, cores and step orders: 2, 4 and 8 servers, two layers in flight, two of one operator in a row."""
    cases: tuple[tuple[Any, int, str, Wire], ...]
    """Small ones that together reach every site: shape, cores, order, queues."""
    late: tuple[Any, int, str]
    """A rank is late in it: shape, seed, order."""
    edge: tuple[int, int]
    """A legal batch and row at which the window is largest beside the stock kernels'."""
    most_experts: int
    most_servers: int
    stock_window: Callable[[Parameters, int], int]
    """What the stock A2 kernels ask for, in so many servers: docs/buffer-size.md."""
    vendor_posts: Callable[[Program], float]
    """Messages that the vendor's kernels post per rank in a dispatch of such a program."""


def _hierarchy_window(p: Parameters, servers: int) -> int:
    block = p.max_batch * (2 * p.hidden + 16 * (-(-p.topk // 8) * 8))
    return (-(-block // 512) * 512) * (p.moe_experts + 2 * servers) + (8 << 20)


def _mesh_window(p: Parameters, servers: int) -> int:
    arriving = min(p.local_experts, p.topk)
    return 2 * (p.max_batch * 8 * servers * arriving * 2 * p.hidden + (2 << 20))


def _hierarchy_posts(program: Program) -> float:
    """One message for each token and server, and two flags (combine one)."""
    calls = program.steps[0].calls
    servers = len(calls) // 8
    experts = calls[0]["moe_expert_num"] // servers
    posts = 0
    for rank, call in enumerate(calls):
        of = call["expert_ids"] // experts
        for server in range(servers):
            if server != rank // 8:
                posts += 2 + int((of == server).any(dim=1).sum())
    return posts / len(calls)


def _mesh_posts(program: Program) -> float:
    """One for each other rank, also of its own server, by the AI CPU."""
    return program.ranks - 1


PLAIN = replace(SMALL, max_batch=2)
HIERARCHY_SCHEDULES = (
    (PLAIN, 2, "dcdc"),
    (replace(PLAIN, quant=True, comm_quant=True, uneven=True), 2, "dcc"),
    (replace(PLAIN, max_batch=1, topk=1, local_experts=1), 3, "ddocd"),
    (replace(PLAIN, dtype=torch.float16, comm_quant=True, hidden=96, skewed=True), 1, "dccdc"),
    (replace(PLAIN, ranks=32, max_batch=1, topk=6, hidden=32), 2, "dcdc"),
    (replace(PLAIN, max_batch=3, topk=12, local_experts=1, hidden=32, quant=True), 4, "dcd"),
    (replace(PLAIN, ranks=32, uneven=True, quant=True, comm_quant=True, hidden=32), 1, "dcc"),
    (replace(PLAIN, ranks=64, max_batch=1, hidden=32, local_experts=1), 1, "dcc"),
)
HIERARCHY_CASES = (
    (replace(SMALL, max_batch=2, quant=True, comm_quant=True), 2, "dccd", Wire(depth=4)),
    (
        replace(SMALL, dtype=torch.float16, quant=True, comm_quant=True, hidden=96, topk=5),
        1,
        "dcc",
        Wire(depth=8, head=2**16 - 3),
    ),
    (replace(SMALL, product="A3", hidden=1024, topk=2, mask=1), 2, "dc", Wire()),
    # More scales than are written together.
    (
        replace(SMALL, max_batch=70, topk=1, hidden=32, local_experts=1, quant=True),
        2,
        "dcc",
        Wire(),
    ),
    # Counts of more than a block.
    (replace(SMALL, max_batch=1, topk=2, local_experts=11, uneven=True), 9, "dc", Wire()),
    (SMALL, 3, "ddoc", Wire(depth=8)),
    # Cores that copy rows and forward nothing.
    (replace(SMALL, max_batch=20, topk=1, hidden=32, local_experts=1), 20, "d", Wire()),
    # A core that serves several servers, and servers where no token goes.
    (
        replace(SMALL, ranks=32, max_batch=1, topk=1, hidden=32, skewed=True),
        1,
        "dc",
        Wire(),
    ),
    (
        replace(SMALL, ranks=32, max_batch=3, topk=6, quant=True, comm_quant=True),
        1,
        "dcc",
        Wire(depth=8),
    ),
    (replace(SMALL, max_batch=2, measured=True), 2, "dccd", Wire()),
    # More rows, and more bytes of them, than are handled together.
    (
        replace(SMALL, max_batch=70, topk=1, hidden=1024, local_experts=1, skewed=True),
        1,
        "dc",
        Wire(),
    ),
)

MESH_SMALL = Shape(ranks=16, max_batch=2, hidden=64, topk=4, local_experts=2, product="A2")
MESH_SCHEDULES = (
    (MESH_SMALL, 2, "dcdc"),
    (replace(MESH_SMALL, quant=True, smooth=True, mask=2), 2, "dcc"),
    (replace(MESH_SMALL, max_batch=1, topk=1, local_experts=1), 3, "ddocd"),
    (replace(MESH_SMALL, dtype=torch.float16, hidden=96, skewed=True, uneven=True), 1, "dccdc"),
    (replace(MESH_SMALL, ranks=32, max_batch=1, topk=6, hidden=32), 2, "dcdc"),
    (replace(MESH_SMALL, max_batch=3, topk=12, local_experts=1, hidden=32, packed=True), 4, "dcd"),
    (replace(MESH_SMALL, zero_experts=2, copy_experts=2, mask=1), 2, "dccd"),
    (replace(MESH_SMALL, ranks=64, max_batch=1, hidden=32, local_experts=1), 1, "dcc"),
    (replace(MESH_SMALL, ranks=6, quant=True, uneven=True), 3, "dcdc"),
)
MESH_CASES = (
    (replace(MESH_SMALL, quant=True, smooth=True, mask=2), 2, "dccd", Wire(depth=4)),
    (
        replace(MESH_SMALL, dtype=torch.float16, hidden=96, copy_experts=1),
        1,
        "dcc",
        Wire(depth=8, head=2**16 - 3),
    ),
    # Counts of more than a block.
    (replace(MESH_SMALL, max_batch=1, topk=2, local_experts=11, uneven=True), 9, "dc", Wire()),
    (MESH_SMALL, 3, "ddoc", Wire(depth=8)),
    (replace(MESH_SMALL, max_batch=3, packed=True, mask=1), 18, "dc", Wire()),
    # Most rows to a few ranks.
    (replace(MESH_SMALL, max_batch=40, topk=2, local_experts=1, skewed=True), 2, "dcc", Wire()),
    (replace(MESH_SMALL, ranks=32, max_batch=1, topk=1, hidden=32), 1, "dc", Wire()),
    (replace(MESH_SMALL, measured=True), 2, "dccd", Wire()),
)

KERNELS = {
    "hierarchy": Kernels(
        *(ServerGroup, server_program, random_server_shape),
        *(HIERARCHY_SCHEDULES, HIERARCHY_CASES, (replace(SMALL, max_batch=2, topk=3), 2, "dccdc")),
        *((512, 10240), 512, 8, _hierarchy_window, _hierarchy_posts),
    ),
    "mesh": Kernels(
        *(MeshGroup, mesh_program, random_mesh_shape),
        *(MESH_SCHEDULES, MESH_CASES, (replace(MESH_SMALL, topk=3), 2, "dccdc")),
        *((256, 32), 1024, 32, _mesh_window, _mesh_posts),
    ),
}
