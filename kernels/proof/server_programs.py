"""Programs for a group in several servers, as ``programs.py`` and ``shapes.py`` make them for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from ascend_moe.reference import combine_world, dispatch_world

from .programs import Calls, Layers, Program, Step, with_layers
from .shapes import Shape

PER_SERVER = {"A2": 8, "A3": 16}


def ranks_per_server(product: str, ranks: int) -> int:
    """Whole servers; or few ranks, half on each of two, which full mesh serves, too."""
    whole = PER_SERVER[product]
    return whole if ranks % whole == 0 else ranks // 2


@dataclass(frozen=True)
class ServerShape(Shape):
    """What all layers of a program over several servers share."""

    product: str = "A2"

    @property
    def contract(self) -> str:
        return "cann-9.1"

    @property
    def servers(self) -> int:
        return self.ranks // PER_SERVER[self.product]


class ServerLayers(Layers):
    """Draws the calls of one layer after another; dispatch takes the weights here."""

    def dispatch(self) -> list[dict[str, Any]]:
        calls = super().dispatch()
        for call in calls:
            call["expert_scales"] = self._weights(len(call["x"]))
            call["comm_alg"] = "hierarchy"
        return calls

    def combine(self, dispatched: Calls, handles: Sequence[Any]) -> list[dict[str, Any]]:
        calls = super().combine(dispatched, handles)
        for call, of in zip(calls, dispatched, strict=True):
            call["expert_scales"] = of["expert_scales"]
            call["comm_alg"] = "hierarchy"
        return calls

    def _weights(self, batch: int) -> Tensor:
        """Of every size and either sign, so that the order of a sum shows."""
        magnitude = 10.0 ** torch.randint(-2, 2, (batch, 1), generator=self._generator)
        return self._apart(self._normal(batch, self.shape.topk) * magnitude)


class ServerProgram(Program):
    """A program whose handle is that of several servers, on both products."""

    def dispatch(self, calls: Calls) -> int:
        expected = dispatch_world(calls, product=self.product, contract=self.contract)
        self.steps.append(Step("dispatch", calls, expected))
        return len(self.steps) - 1

    def combine(self, calls: Calls, of: int) -> None:
        complete = [
            {
                **call,
                "assist_info_for_combine": handle.assist_info_for_combine,
                "ep_send_counts": handle.ep_recv_counts,
                "expand_scales": handle.expand_scales,
            }
            for call, handle in zip(calls, self.steps[of].expected, strict=True)
        ]
        expected = combine_world(complete, product=self.product, contract=self.contract)
        self.steps.append(Step("combine", complete, expected, of))


def server_program(name: str, shape: ServerShape, seed: int, order: str = "dc") -> Program:
    """As ``layer_program``: ``d`` dispatches, ``c`` combines the latest dispatch, ``o`` the one before it."""
    program = ServerProgram(name, shape.contract, shape.product)
    return with_layers(program, ServerLayers(shape, seed), order)


HIDDEN = {
    "A2": (32, 64, 96, 128, 160, 224, 256, 1024, 2048),
    "A3": (1024, 1056, 1184, 2048),
}


def random_server_shape(random: Random, *, most_tokens: int = 6) -> ServerShape:
    """A legal shape; all features occur, in any combination the contract allows."""
    product = random.choice(("A2", "A2", "A2", "A3"))
    servers = random.choice((2, 2, 2, 4, 4, 8)) if product == "A2" else random.choice((1, 2, 2, 3))
    ranks = servers * PER_SERVER[product]
    local_experts = random.choice((1, 1, 2, 3, 4))
    uneven = product == "A2" and random.random() < 0.3
    return ServerShape(
        ranks=ranks,
        max_batch=random.randint(1, most_tokens),
        hidden=random.choice(HIDDEN[product]),
        topk=random.randint(1, min(16, local_experts * ranks)),
        local_experts=local_experts,
        dtype=random.choice((torch.bfloat16, torch.float16)),
        quant=random.random() < 0.5,
        mask=random.choice((0, 1)) if product == "A3" else 0,
        uneven=uneven,
        cumulative=random.random() < 0.5,
        comm_quant=random.random() < 0.5,
        skewed=random.random() < 0.3,
        strided=random.random() < 0.1,
        product=product,
    )


SMALL = ServerShape(ranks=16, max_batch=3, hidden=64, topk=4, local_experts=2)
