"""Programs: sequences of dispatches and combines of a whole group, with what the oracle says must come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import with_defaults
from ascend_moe.reference import combine_world, dispatch_world

from .shapes import Shape

Calls = Sequence[Mapping[str, Any]]


@dataclass
class Step:
    """One operator on all ranks. ``of`` is the step whose handle a combine uses; ``expected`` one result per rank."""

    op: str
    calls: Calls
    expected: Sequence[Any]
    of: int = -1


@dataclass
class Program:
    """Steps that all ranks enqueue in this order, without waiting for one another.

    On A2 the stock handle is a table of the sender; our kernels keep A3's there too. So the oracle sums by A2's handle,
    and the kernels are compared with A3's.
    """

    name: str
    contract: str
    product: str = "A3"
    steps: list[Step] = field(default_factory=list, repr=False)
    ordinals: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)
    """A2's handles by step."""

    @property
    def ranks(self) -> int:
        """All ranks; with TP two per EP rank."""
        return len(self.steps[0].calls)

    @property
    def tp(self) -> int:
        return 2 if self.steps[0].calls[0].get("tp_world_size") == 2 else 1

    @property
    def hidden(self) -> int:
        return int(self.steps[0].calls[0]["x"].shape[1])

    def dispatch(self, calls: Calls) -> int:
        """Appends a dispatch and returns its number."""
        number = len(self.steps)
        expected = dispatch_world(calls, product=self.product, contract=self.contract)
        if self.product == "A2":
            self.ordinals[number] = [output.assist_info_for_combine for output in expected]
            triples = dispatch_world(calls, product="A3", contract=self.contract, check=False)
            expected = [
                output._replace(assist_info_for_combine=other.assist_info_for_combine)
                for output, other in zip(expected, triples, strict=True)
            ]
        self.steps.append(Step("dispatch", calls, expected))
        return number

    def combine(self, calls: Calls, of: int) -> None:
        """Appends a combine on the handle of step ``of``; ``calls`` come without handle."""
        handles = self.steps[of].expected
        stock = self.ordinals.get(of) or [handle.assist_info_for_combine for handle in handles]
        complete = [
            {
                **call,
                "assist_info_for_combine": assist_info,
                "ep_send_counts": handle.ep_recv_counts,
                "tp_send_counts": handle.tp_recv_counts if self.tp == 2 else None,
            }
            for call, handle, assist_info in zip(calls, handles, stock, strict=True)
        ]
        if self.product == "A2":  # required there, and read in hierarchy alone
            for call, handle in zip(complete, handles, strict=True):
                call["expand_scales"] = torch.full((len(handle.expand_x),), torch.nan)
        expected = combine_world(complete, product=self.product, contract=self.contract)
        self.steps.append(Step("combine", complete, expected, of))


def elastic_of(call: Mapping[str, Any]) -> Elastic | None:
    """Who is left of the group of a call; None: all."""
    info = call.get("elastic_info")
    return None if info is None else Elastic.read(info.tolist(), call["ep_world_size"])


def counts_written(dispatched: Any, call: Mapping[str, Any]) -> tuple[int, int]:
    """Entries of (ep_recv_counts, expert_token_nums) that have a meaning: those of ranks that are left."""
    elastic = elastic_of(call)
    if elastic is None:
        return len(dispatched.ep_recv_counts), len(dispatched.expert_token_nums)
    left = elastic.reduced(with_defaults("dispatch", {"group_ep": "ep", **call}))
    experts = World.of_call(left).experts_on(left["ep_rank_id"])
    return elastic.ranks * experts, experts


def received_rows(dispatched: Any, call: Mapping[str, Any]) -> tuple[int, int]:
    """(own rows, rows with the TP peer's) of a dispatch result."""
    if call.get("tp_world_size") != 2:
        # Tables lie behind it.
        counts = (
            call["moe_expert_num"] if call.get("comm_alg") else counts_written(dispatched, call)[0]
        )
        last = counts - 1
        return (int(dispatched.ep_recv_counts[last]),) * 2
    return int(dispatched.tp_recv_counts[call["tp_rank_id"]]), int(dispatched.tp_recv_counts.sum())


class Layers:
    """Draws the calls of one layer after another for a shape."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self._generator = torch.Generator().manual_seed(seed)
        self._random = Random(seed)
        self._batches = [
            self._random.randint(1, shape.max_batch) if shape.uneven else shape.max_batch
            for _ in range(shape.ranks * shape.tp)
        ]
        self._scales = self._normal(shape.shared_experts + shape.moe_experts, shape.hidden).abs()

    def dispatch(self) -> list[dict[str, Any]]:
        """One call per rank: fresh tokens, routes and masks."""
        shape = self.shape
        return [
            {
                **self._common(rank),
                **self._tokens(self._batches[rank]),
                "expert_ids": self._turned(self._ids(self._batches[rank])),
                "x_active_mask": self._turned(self._mask(self._batches[rank])),
                "quant_mode": 2 if shape.quant else 0,
                "expert_token_nums_type": 0 if shape.cumulative else 1,
            }
            for rank in range(shape.ranks * shape.tp)
        ]

    def combine(self, dispatched: Calls, handles: Sequence[Any]) -> list[dict[str, Any]]:
        """The combine of that dispatch, with fresh expert outputs; rows nobody may read are NaN."""
        shape = self.shape
        calls = []
        for rank, (call, handle) in enumerate(zip(dispatched, handles, strict=True)):
            batch = self._batches[rank]
            expand_x = torch.full(handle.expand_x.shape, torch.nan, dtype=shape.dtype)
            _, rows = received_rows(handle, call)
            expand_x[:rows] = self._rows(rows)
            special = {}
            if shape.copy_experts or shape.const_experts:
                special["ori_x"] = call["x"]
            if shape.const_experts:
                special |= self._const_experts()
            if shape.shared_x:
                special["shared_expert_x"] = self._rows(batch)
            calls.append(
                {
                    **self._common(rank),
                    **special,
                    "expand_x": expand_x,
                    "expert_ids": call["expert_ids"],
                    "x_active_mask": call["x_active_mask"],
                    "expert_scales": self._apart(self._normal(batch, shape.topk).abs()),
                    "comm_quant_mode": 2 if shape.comm_quant else 0,
                }
            )
        return calls

    def _tokens(self, batch: int) -> dict[str, Tensor | None]:
        """x, and the scales that come with it."""
        shape = self.shape
        if not shape.packed:
            scales = self._scales if shape.smooth else None
            return {"x": self._apart(self._rows(batch)), "scales": scales}
        size = (batch, shape.hidden)
        words = torch.randint(-(2**31), 2**31, size, generator=self._generator).int()
        return {"x": self._apart(words), "scales": self._normal(batch).abs()}

    def _const_experts(self) -> dict[str, Tensor]:
        """Scores of every size; the two of every other expert are large and close.

        Only the difference of two scores matters, so close ones show in which order they were summed.
        """
        size = (self.shape.const_experts, self.shape.hidden)
        magnitude = 10.0 ** torch.randint(-3, 4, (size[0], 1), generator=self._generator)
        alpha_1, alpha_2 = self._normal(*size) * magnitude, self._normal(*size) * magnitude
        alpha_2[::2] = alpha_1[::2]
        alpha_2[::2, :8] *= 1.02
        rows = {
            "const_expert_alpha_1": alpha_1,
            "const_expert_alpha_2": alpha_2,
            "const_expert_v": self._normal(*size),
        }
        return {name: row.to(self.shape.dtype) for name, row in rows.items()}

    def _common(self, rank: int) -> dict[str, Any]:
        shape = self.shape
        special = (
            {
                "zero_expert_num": shape.zero_experts,
                "copy_expert_num": shape.copy_experts,
                "const_expert_num": shape.const_experts,
            }
            if shape.zero_experts + shape.copy_experts + shape.const_experts
            else {}
        )
        if shape.tp == 2:
            special |= {"group_tp": "tp", "tp_world_size": 2, "tp_rank_id": rank % 2}
        return special | {
            "ep_world_size": shape.ranks,
            "ep_rank_id": rank // shape.tp,
            "moe_expert_num": shape.moe_experts,
            "shared_expert_num": shape.shared_experts,
            "shared_expert_rank_num": shape.shared_ranks,
            "global_bs": shape.max_batch * shape.ranks if shape.uneven else 0,
        }

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._generator)

    def _rows(self, count: int) -> Tensor:
        """Rows of very different magnitude, some of them zero."""
        magnitude = 10.0 ** torch.randint(-4, 4, (count, 1), generator=self._generator)
        magnitude[torch.rand(count, 1, generator=self._generator) < 0.1] = 0.0
        return (self._normal(count, self.shape.hidden) * magnitude).to(self.shape.dtype)

    def _apart(self, tensor: Tensor) -> Tensor:
        """With a gap behind every row."""
        if not self.shape.strided:
            return tensor
        return torch.nn.functional.pad(tensor, (0, 3))[:, : tensor.shape[1]]

    def _turned(self, tensor: Tensor | None) -> Tensor | None:
        """A matrix column by column in memory."""
        if tensor is None or not self.shape.strided:
            return tensor
        return tensor.mT.contiguous().mT if tensor.dim() == 2 else tensor

    def _ids(self, batch: int) -> Tensor:
        shape = self.shape
        all_experts = (
            shape.moe_experts + shape.zero_experts + shape.copy_experts + shape.const_experts
        )
        among = max(shape.topk, 2) if shape.skewed else all_experts
        rows = [
            torch.randperm(min(among, all_experts), generator=self._generator)[: shape.topk]
            for _ in range(batch)
        ]
        return torch.stack(rows).int()

    def _mask(self, batch: int) -> Tensor | None:
        shape = self.shape
        if shape.mask == 0:
            return None
        if shape.mask == 1:
            return torch.arange(batch) < self._random.randint(0, batch)
        # The August-2025 rule: below a row without an active pair there is none.
        active = torch.rand(batch, shape.topk, generator=self._generator) < 0.6
        return active & active.any(dim=1).cummin(dim=0).values[:, None]


def layer_program(name: str, shape: Shape, seed: int, order: str = "dc") -> Program:
    """A program of fresh layers: ``d`` dispatches, ``c`` combines the latest dispatch, ``o`` the one before it."""
    return with_layers(Program(name, shape.contract, shape.product), Layers(shape, seed), order)


def with_layers(program: Program, layers: Layers, order: str) -> Program:
    """The program with steps behind it, one for each letter of the order."""
    dispatches: list[int] = []
    for letter in order:
        if letter == "d":
            dispatches.append(program.dispatch(layers.dispatch()))
        else:
            of = dispatches[-1 if letter == "c" else -2]
            step = program.steps[of]
            program.combine(layers.combine(step.calls, step.expected), of)
    return program
