"""An EP group of simulated ranks that runs our kernels on the operators' own keywords.

`KernelGroup` does what the host library does on hardware: windows, contexts, parameters,
workspace, launches. Calls are the dicts that ``ascend_moe.reference.dispatch_world`` and
``combine_world`` take, so results can be compared directly.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic, words_of_group
from ascend_moe.contract.shapes import dispatch_specs_of_call
from ascend_moe.contract.signature import with_defaults

from .arguments import Packing, Parameters, meeting, parameters, waits, words
from .simulator import Simulator, library

MAGIC, VERSION, MAX_RANKS = 0x454F4D41, 4, 768
CONTROL_BYTES = 256 << 10
WHOLE = [0] * words_of_group(MAX_RANKS)
"""What the context of a group says that all ranks are left of."""
NONCE = 0x5EED0001


def tp_nonce(nonce: int) -> int:
    """The nonce of the TP pairs of a group with this nonce: any other number."""
    return nonce ^ 0x1003


OUTPUTS = (
    "expand_x",
    "dynamic_scales",
    "assist_info_for_combine",
    "expert_token_nums",
    "ep_recv_counts",
    "tp_recv_counts",
    "expand_scales",
)


def output_shapes(call: Mapping[str, Any]) -> dict[str, Tensor]:
    """Empty tensors like the seven outputs of this dispatch."""
    specs = dispatch_specs_of_call(call)
    return {
        name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
        for name, spec in zip(OUTPUTS, specs, strict=True)
    }


@dataclass
class Dispatched:
    """Device addresses of one rank's dispatch outputs, and what they look like."""

    addresses: dict[str, int]
    shapes: dict[str, Tensor]
    launch: int = 0


@dataclass
class Combined:
    """The output of one rank's combine."""

    address: int
    shape: Tensor
    launch: int = 0


class Kept:
    """Tensors that calls change in place: the same one of several calls is one in device memory."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._kept: dict[tuple[int, int], tuple[Tensor, int]] = {}

    def address(self, rank: int, tensor: Tensor | None, name: str) -> int:
        """Where it is; 0 for none."""
        if tensor is None:
            return 0
        key = (rank, id(tensor))
        if key not in self._kept:
            self._kept[key] = tensor, self._simulator.put(rank, tensor, name)
        return self._kept[key][1]

    def place(self, rank: int, tensor: Tensor, address: int) -> None:
        """Where it lies inside something larger."""
        self._kept[rank, id(tensor)] = tensor, address

    def content(self, rank: int, tensor: Tensor) -> Tensor:
        """What it holds now."""
        return self._simulator.get(self._kept[rank, id(tensor)][1], tensor)[0]


class KernelGroup:
    """The ranks of one EP group inside a simulator, each with its window and context."""

    def __init__(
        self,
        simulator: Simulator,
        ranks: int,
        window_bytes: int,
        *,
        tp: int = 1,
        tp_window_bytes: int = 0,
        cores: int | Sequence[int] = 4,
        nonce: int = NONCE,
        old_data: bytes = b"",
        offset: int = 0,
        timeout_ticks: int = 0,
        mapped: Sequence[int] = (),
        only: int | None = None,
        opened: bool = True,
        product: str = "A3",
    ) -> None:
        """``ranks`` counts all: rank ``r`` is EP rank ``r // tp`` of plane ``r % tp``; pairs are TP pairs.

        ``old_data`` is what somebody left at the start of every window; ``offset`` shifts every
        tensor by so many elements, as views are. ``mapped``: addresses of windows that exist
        already; ``only``: this process runs one rank of the group. ``cores``: of every rank, or one number each.
        """
        self.simulator, self.offset, self.product = simulator, offset, product
        self.kept = Kept(simulator)
        self.cores = [cores] * ranks if isinstance(cores, int) else cores
        self.timeout_ticks = timeout_ticks
        self.local: Sequence[int] = range(ranks) if only is None else (only,)
        self._scaled = False
        self.windows = list(mapped) or [
            self._window(rank, window_bytes, "window", old_data) for rank in range(ranks)
        ]
        self._tp_windows = [
            self._window(rank, tp_window_bytes, "TP window", old_data) if tp == 2 else 0
            for rank in range(ranks)
        ]
        self._sizes, self._tp = (window_bytes, tp_window_bytes), tp
        self.contexts: dict[int, int] = {}
        if opened:
            self.open(nonce)

    def open(self, nonce: int, elastic: Elastic | None = None) -> None:
        """Enqueues the meeting and `open` under a nonce, of the ranks that are left.

        Again: as if the group had been destroyed and made anew on the same buffers.
        """
        self.meet(nonce, elastic)
        for rank in self.local:
            self._launch_opening("ascend_moe_open", rank, nonce)

    def meet(self, nonce: int, elastic: Elastic | None = None) -> None:
        """Enqueues the meeting alone, with new contexts: those who are gone have no address there."""
        tp = self._tp
        gone, said = ([], []) if elastic is None else (elastic.gone, elastic.words())
        self.local = [rank for rank in self.local if rank not in gone]
        self._scaled = elastic is not None
        for rank in self.local:
            ep_rank, tp_rank = divmod(rank, tp)
            plane = self.windows[tp_rank::tp]
            plane = [0 if peer in gone else address for peer, address in enumerate(plane)]
            pair = self._tp_windows[ep_rank * tp : ep_rank * tp + tp] + [0] * (2 - tp)
            raw = context_bytes(
                (ep_rank, len(plane), nonce, tp_rank, tp, tp_nonce(nonce)),
                self._sizes[0],
                plane,
                tp=(self._sizes[1], *pair),
                elastic=said,
            )
            self.contexts[rank] = self.simulator.put(rank, raw, "context")
            self._launch_opening("ascend_moe_meet", rank, nonce)

    def _launch_opening(self, kernel: str, rank: int, nonce: int) -> None:
        given = meeting(rank, nonce)
        given.timeout_ticks = self.timeout_ticks
        arguments = [self.contexts[rank], *words(given)]
        self.simulator.launch(rank, kernel, arguments, self.cores[rank])

    def _window(self, rank: int, size: int, name: str, old_data: bytes) -> int:
        address = self.simulator.alloc(rank, size, name)
        self.simulator.write(address, old_data[:size], written=False)
        return address

    def _by_value(self, given: Parameters) -> list[int]:
        given.timeout_ticks = self.timeout_ticks
        return words(given)

    def _tensor(self, rank: int, call: Mapping[str, Any], name: str) -> int:
        tensor = call[name]
        if tensor is None:
            return 0
        offset = self.offset * tensor.element_size()
        if tensor.is_contiguous():
            return self.simulator.put(rank, tensor, name, offset)
        return self._packed(rank, tensor, name, offset)

    def _packed(self, rank: int, tensor: Tensor, name: str, offset: int) -> int:
        """A matrix with strides, made contiguous by a launch of its own."""
        span = 1 + sum(
            (n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)
        )
        raw = tensor.as_strided((span,), (1,))
        size = tensor.element_size()
        packing = Packing(
            size=(1, *tensor.shape),
            element_bytes=size,
            stride=(0, *(step * size for step in tensor.stride())),
        )
        target = self.simulator.alloc(rank, tensor.numel() * size, f"packed {name}")
        source = self.simulator.put(rank, raw, name, offset)
        self.simulator.launch(
            rank, "ascend_moe_pack", [source, target, *words(packing)], self.cores[rank]
        )
        return target

    def _workspace(self, rank: int, size: int) -> int:
        return self.simulator.alloc(rank, max(size, 1), "workspace")

    def dispatch(self, calls: Sequence[Mapping[str, Any]]) -> list[Dispatched]:
        """Enqueues a dispatch on every local rank.

        ``calls`` are those of all ranks, of the first ones, or of those that are left.
        """
        by_rank = self._by_rank(calls)
        return [
            self._dispatch(rank, with_defaults("dispatch", {"group_ep": "ep", **by_rank[rank]}))
            for rank in self.local
            if rank in by_rank
        ]

    def _by_rank(self, calls: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        ranks = [call["ep_rank_id"] for call in calls] if self._scaled else range(len(calls))
        return dict(zip(ranks, calls, strict=True))

    def _dispatch(self, rank: int, call: Mapping[str, Any]) -> Dispatched:
        shapes = output_shapes(call)
        given = parameters("dispatch", call)
        given.waits = waits(call, self.product)
        given.capacity = shapes["expand_x"].shape[0]
        addresses = {
            name: self.simulator.alloc(rank, max(like.numel() * like.element_size(), 1), name)
            for name, like in shapes.items()
        }
        inputs = [
            self._tensor(rank, call, name)
            for name in ("x", "expert_ids", "scales", "x_active_mask", "elastic_info")
        ]
        arguments = [
            self.contexts[rank],
            *inputs,
            *(addresses[name] for name in OUTPUTS[:6]),
            self.kept.address(rank, call["performance_info"], "performance_info"),
            0,  # no workspace: only full mesh over several servers has one
            *self._by_value(given),
        ]
        return Dispatched(
            addresses,
            shapes,
            self.simulator.launch(rank, "ascend_moe_dispatch", arguments, self.cores[rank]),
        )

    def combine(
        self, calls: Sequence[Mapping[str, Any]], handles: Sequence[Dispatched]
    ) -> list[Combined]:
        """Enqueues a combine on every local rank, or on the first ones, on handles that a dispatch will have filled."""
        by_rank = self._by_rank(calls)
        return [
            self._combine(
                rank, with_defaults("combine", {"group_ep": "ep", **by_rank[rank]}), handle
            )
            for rank, handle in zip(self.local, handles, strict=False)
        ]

    def _combine(self, rank: int, call: Mapping[str, Any], handle: Dispatched) -> Combined:
        given = parameters("combine", call)
        given.waits = waits(call, self.product)
        out = torch.empty(given.batch, given.hidden, dtype=call["expand_x"].dtype)
        address = self.simulator.alloc(rank, out.numel() * out.element_size(), "combine out")

        def tensor(name: str) -> int:
            return self._tensor(rank, call, name)

        arguments = [
            self.contexts[rank],
            tensor("expand_x"),
            tensor("expert_ids"),
            handle.addresses["assist_info_for_combine"],
            handle.addresses["ep_recv_counts"],
            tensor("expert_scales"),
            handle.addresses["tp_recv_counts"],
            tensor("x_active_mask"),
            tensor("shared_expert_x"),
            tensor("elastic_info"),
            tensor("ori_x"),
            tensor("const_expert_alpha_1"),
            tensor("const_expert_alpha_2"),
            tensor("const_expert_v"),
            address,
            self.kept.address(rank, call["performance_info"], "performance_info"),
            self._workspace(rank, library().moe_combine_workspace(ctypes.byref(given))),
            *self._by_value(given),
        ]
        return Combined(
            address,
            out,
            self.simulator.launch(rank, "ascend_moe_combine", arguments, self.cores[rank]),
        )

    def read(self, result: Dispatched) -> dict[str, tuple[Tensor, Tensor]]:
        """Content of every output, and which elements a kernel wrote."""
        return {
            name: self.simulator.get(result.addresses[name], like)
            for name, like in result.shapes.items()
        }


def window_bytes(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """The smallest window that serves all these (op, call) pairs."""
    lib, dispatch, combine = library(), 0, 0
    for op, call in calls:
        filled = with_defaults(op, {"group_ep": "ep", **call})
        given = parameters(op, filled)
        if op == "dispatch":
            dispatch = max(
                dispatch, lib.moe_dispatch_bytes(ctypes.byref(given), filled["ep_world_size"])
            )
        else:
            combine = max(combine, lib.moe_combine_bytes(ctypes.byref(given)))
    return lib.moe_window_bytes(dispatch, combine)


def context_bytes(
    head: Sequence[int],
    window_bytes: int,
    windows: Sequence[int],
    *,
    tp: Sequence[int] = (0, 0, 0),
    elastic: Sequence[int] = (),
) -> bytes:
    """`Context` of `kernels/device/abi.h`. ``head``: from ``ep_rank`` to ``tp_nonce``."""
    own = windows[head[0]]
    return struct.pack(
        "<8I7Q768Q768Q1540i",
        *(MAGIC, VERSION, *head, window_bytes),
        *(own, own, elastic[0] if elastic else 0, *tp),
        *2 * [*windows, *[0] * (MAX_RANKS - len(windows))],
        *[*elastic, *WHOLE[len(elastic) :]],
    )


def tp_window_bytes(hidden: int, cores: int) -> int:
    """The smallest TP window: a ring of one row per core."""
    return library().moe_tp_window_bytes(hidden, cores)
