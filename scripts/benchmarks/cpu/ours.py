"""The project: the public functions, with everything they check."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor

import ascend_moe
from scripts.benchmarks.cpu.cases import Routing, attributes


class Ours:
    """One rank's calls on one routing."""

    def __init__(self, routing: Routing, rank: int, group: dist.ProcessGroup) -> None:
        common = {
            "group_ep": ascend_moe.hccl_comm_name(group, rank),
            "expert_ids": routing.ids[rank],
        } | attributes(routing.case, routing.world, rank)
        self._dispatch: dict[str, Any] = common | {"x": routing.x[rank]}
        self._combine: dict[str, Any] = common | {"expert_scales": routing.weights[rank]}
        self._held: tuple[Tensor, ...] = ()

    def dispatch(self) -> tuple[Tensor, ...]:
        return ascend_moe.npu_moe_distribute_dispatch_v2(**self._dispatch)

    def dispatch_int8(self) -> tuple[Tensor, ...]:
        return ascend_moe.npu_moe_distribute_dispatch_v2(**self._dispatch, quant_mode=2)

    def combine(self) -> Tensor:
        """Of the rows that `hold` dispatched."""
        return self._home(self._held)

    def round_trip(self) -> Tensor:
        return self._home(self.dispatch())

    def hold(self) -> None:
        self._held = self.dispatch()

    def release(self) -> None:
        self._held = ()

    def received(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """(rows, scales) without the padding."""
        count = int(outputs[4][-1])
        return outputs[0][:count], outputs[1][:count]

    def _home(self, dispatched: tuple[Tensor, ...]) -> Tensor:
        expand_x, _, assist_info, _, ep_counts, tp_counts, _ = dispatched
        return ascend_moe.npu_moe_distribute_combine_v2(
            expand_x=expand_x,
            assist_info_for_combine=assist_info,
            ep_send_counts=ep_counts,
            tp_send_counts=tp_counts,
            **self._combine,
        )

    exact = True
    """Combine must equal the oracle in every bit."""
