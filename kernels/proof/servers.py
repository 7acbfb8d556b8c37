"""A group in several servers that runs our hierarchy kernels: mates by window, the rail by network card.

As ``group.py`` and ``programs.py`` for one server; the protocol is ``docs/kernels-hierarchy.md``.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.signature import with_defaults

from .arguments import Parameters, meeting, parameters, waits, words
from .cards import CardGroup, Wire
from .execution import Outcome, old_window, run_and_judge, same_bits
from .failures import Record
from .group import NONCE, Combined, Dispatched, Kept, output_shapes
from .programs import Calls, Program, Step
from .server_programs import ranks_per_server
from .simulator import Schedule, Simulator, library


class ServerGroup(CardGroup):
    """The ranks of one EP group in several servers, each with its windows, queue pairs and context."""

    kernels = "hierarchy"

    def __init__(
        self,
        simulator: Simulator,
        ranks: int,
        window_bytes: int,
        wire: Wire,
        *,
        product: str = "A2",
        cores: int | Sequence[int] = 4,
        old_data: bytes = b"",
        offset: int = 0,
        timeout_ticks: int = 0,
        absent: Sequence[int] = (),
    ) -> None:
        """``absent`` ranks never launch anything behind the opening. The rest as ``KernelGroup``."""
        self.per_server, self.product = ranks_per_server(product, ranks), product
        self.cores = [cores] * ranks if isinstance(cores, int) else list(cores)
        self.offset, self.timeout_ticks, self.absent = offset, timeout_ticks, frozenset(absent)
        self.kept = Kept(simulator)
        super().__init__(
            simulator,
            [rank // self.per_server for rank in range(ranks)],
            window_bytes,
            wire,
            old_data=old_data,
        )
        self.open(NONCE)

    def open(self, nonce: int) -> None:
        """Enqueues `open` with new contexts under a nonce. Again: as if a new group had got the same buffers."""
        ranks = range(len(self.cores))
        self.contexts = [self._with_servers(rank, nonce) for rank in ranks]
        for rank in ranks:
            given = meeting(rank, nonce)
            given.timeout_ticks = self.timeout_ticks
            self._launch(
                rank, f"ascend_moe_{self.kernels}_open", [self.contexts[rank], *words(given)]
            )

    def _linked(self, rank: int, peer: int) -> bool:
        """The kernels use queue pairs along the rail only."""
        return super()._linked(rank, peer) and rank % self.per_server == peer % self.per_server

    def _with_servers(self, rank: int, nonce: int) -> int:
        """The context with what lies between servers behind it."""
        size, plain = library().moe_context_bytes(), self._context(rank, nonce)
        raw = self.simulator.get(plain, torch.empty(size, dtype=torch.uint8))[0].numpy().tobytes()
        return self.simulator.put(
            rank,
            raw
            + struct.pack(
                "<IIQQ",
                self.per_server,
                self.product == "A2",
                self.outputs[rank],
                self.tables[rank],
            ),
            "context of several servers",
        )

    def _launch(self, rank: int, kernel: str, arguments: list[int]) -> int:
        return self.simulator.launch(rank, kernel, arguments, self.cores[rank])

    def _by_value(self, given: Parameters) -> list[int]:
        given.timeout_ticks = self.timeout_ticks
        return words(given)

    def _tensor(self, rank: int, tensor: Tensor | None, name: str) -> int:
        if tensor is None:
            return 0
        offset = self.offset * tensor.element_size()
        return self.simulator.put(rank, tensor.contiguous(), name, offset)

    def dispatch(self, calls: Calls) -> list[Dispatched]:
        """Enqueues a dispatch on every rank but absent ones."""
        return [
            self._dispatch(rank, with_defaults("dispatch", {"group_ep": "ep", **call}))
            for rank, call in enumerate(calls)
        ]

    def _dispatch(self, rank: int, call: Mapping[str, Any]) -> Dispatched:
        shapes = output_shapes(call)
        given = parameters("dispatch", call)
        given.waits = waits(call, self.product)
        given.capacity = shapes["expand_x"].shape[0]
        if self.product == "A2":
            given.mask = 0  # the contract ignores it there
        addresses = {
            name: self.simulator.alloc(rank, max(like.numel() * like.element_size(), 1), name)
            for name, like in shapes.items()
        }
        if rank in self.absent:
            return Dispatched(addresses, shapes)
        outputs = (
            "expand_x",
            "dynamic_scales",
            "expert_token_nums",
            "ep_recv_counts",
            "expand_scales",
        )
        arguments = [
            self.contexts[rank],
            *(
                self._tensor(rank, call[name], name)
                for name in ("x", "expert_ids", "expert_scales", "x_active_mask")
            ),
            *(addresses[name] for name in outputs),
            self.kept.address(rank, call["performance_info"], "performance_info"),
            self.simulator.alloc(
                rank, library().moe_hierarchy_workspace(ctypes.byref(given)), "workspace"
            ),
            *self._by_value(given),
        ]
        launch = self._launch(rank, "ascend_moe_hierarchy_dispatch", arguments)
        return Dispatched(addresses, shapes, launch)

    def combine(self, calls: Calls, handles: Sequence[Dispatched]) -> list[Combined]:
        """Enqueues a combine on every rank but absent ones, on handles that a dispatch will have filled."""
        return [
            self._combine(rank, with_defaults("combine", {"group_ep": "ep", **call}), handle)
            for rank, (call, handle) in enumerate(zip(calls, handles, strict=True))
        ]

    def _combine(self, rank: int, call: Mapping[str, Any], handle: Dispatched) -> Combined:
        given = parameters("combine", call)
        given.waits = waits(call, self.product)
        if self.product == "A2":
            given.mask = 0
        out = torch.empty(given.batch, given.hidden, dtype=call["expand_x"].dtype)
        address = self.simulator.alloc(rank, out.numel() * out.element_size(), "combine out")
        if rank in self.absent:
            return Combined(address, out)
        arguments = [
            self.contexts[rank],
            self._tensor(rank, call["expand_x"], "expand_x"),
            handle.addresses["ep_recv_counts"],
            handle.addresses["expand_scales"],
            self._tensor(rank, call["x_active_mask"], "x_active_mask"),
            address,
            self.kept.address(rank, call["performance_info"], "performance_info"),
            *self._by_value(given),
        ]
        return Combined(address, out, self._launch(rank, "ascend_moe_hierarchy_combine", arguments))

    @staticmethod
    def step_of(record: Record, program: Program) -> int:
        """The number of the step that wrote an error record; 0 for `open`, in front of all."""
        return record.step(program)

    @staticmethod
    def compare(simulator: Simulator, step: Step, rank: int, result: Any) -> str:
        """What differs from the oracle, or an empty string."""
        return compare(simulator, step, rank, result)

    def play(self, program: Program) -> list[Sequence[Any]]:
        """Enqueues all steps."""
        results: list[Sequence[Any]] = []
        for step in program.steps:
            if step.op == "dispatch":
                results.append(self.dispatch(step.calls))
            else:
                results.append(self.combine(step.calls, results[step.of]))
        return results


def server_window_bytes(program: Program, kernels: str = ServerGroup.kernels) -> int:
    """The smallest window that serves all steps."""
    lib, per_server = library(), ranks_per_server(program.product, program.ranks)
    needed = {"dispatch": 0, "combine": 0}
    for step in program.steps:
        for call in step.calls:
            given = parameters(step.op, with_defaults(step.op, {"group_ep": "ep", **call}))
            sizes = (ctypes.byref(given), program.ranks // per_server, per_server)
            size = getattr(lib, f"moe_{kernels}_{step.op}_bytes")(*sizes)
            needed[step.op] = max(needed[step.op], size)
    return getattr(lib, f"moe_{kernels}_window_bytes")(needed["dispatch"], needed["combine"])


def execute_on_servers(
    program: Program,
    schedule: Schedule,
    *,
    wire: Wire | None = None,
    cores: int | Sequence[int] = 3,
    offset: int = 0,
    mutate: str = "",
    judge: Any = None,
    group_type: type[ServerGroup] = ServerGroup,
) -> Outcome:
    """One run in windows full of old data, judged by the oracle unless told otherwise."""
    with Simulator(schedule, mutate) as simulator:
        group = group_type(
            simulator,
            program.ranks,
            server_window_bytes(program, group_type.kernels),
            wire or Wire(),
            product=program.product,
            cores=cores,
            offset=offset,
            old_data=old_window(schedule.seed),
        )
        results = group.play(program)
        return run_and_judge(
            simulator, program, results, partial(judge or group.compare, simulator)
        )


def compare(simulator: Simulator, step: Step, rank: int, result: Any) -> str:
    """What differs from the oracle, or an empty string."""
    expected = step.expected[rank]
    if step.op == "combine":
        content, written = simulator.get(result.address, result.shape)
        if not written.all():
            return f"{int((~written).sum())} elements of the output were not written"
        return "" if same_bits(content, expected) else "the output differs"
    call = step.calls[rank]
    slots = call["moe_expert_num"]
    rows = int(expected.ep_recv_counts[slots - 1])
    lengths = {
        "expand_x": rows,
        "expand_scales": rows,
        "dynamic_scales": rows if call["quant_mode"] else 0,
        "expert_token_nums": len(expected.expert_token_nums),
        "ep_recv_counts": slots + 2 * rows,  # behind them are tables of our own
        "assist_info_for_combine": 0,
    }
    for name, length in lengths.items():
        content, written = simulator.get(result.addresses[name], result.shapes[name])
        if not written[:length].all():
            return f"{name} was not written completely"
        if name != "ep_recv_counts" and written[length:].any():
            return f"{name} was written beyond its {length} entries"
        if not same_bits(content[:length], getattr(expected, name)[:length]):
            return f"{name} differs"
    return ""
