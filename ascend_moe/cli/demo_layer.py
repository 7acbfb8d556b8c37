"""The MoE layer of the demo: what every rank holds and computes. No process, no output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ascend_moe.contract.call import DescribedTensor
from ascend_moe.contract.check import constraint_error, violations
from ascend_moe.contract.resolve import Resolved, resolve_contract
from ascend_moe.contract.shapes import World

if TYPE_CHECKING:
    from torch import Tensor


class Expected(NamedTuple):
    """The reference of the whole world: per rank the seven outputs of dispatch, and the result of combine."""

    dispatched: list[tuple[Tensor, ...]]
    combined: list[Tensor]


class RankReport(NamedTuple):
    """One row of the table."""

    rank: int
    holds: str
    rows: int
    bytes_moved: int
    max_error: float
    equal: bool
    dispatch_ms: float
    combine_ms: float


@dataclass(frozen=True)
class Layer:
    """Sizes of the layer; tensors follow from the seed, so every process makes the same ones."""

    ranks: int
    bs: int
    hidden: int
    topk: int
    experts: int
    shared_ranks: int
    quant_mode: int
    product: str
    seed: int

    def __str__(self) -> str:
        quant = "int8 rows with smooth scales" if self.quant_mode else "bf16 rows"
        return (
            f"{self.product} full mesh on CPU: {self.ranks} ranks ({self.shared_ranks} shared), BS {self.bs}, "
            f"H {self.hidden}, K {self.topk}, {self.experts} MoE experts, {quant}"
        )

    @property
    def world(self) -> World:
        return World.of_call(self._attributes(0))

    def dispatch_call(self, rank: int) -> dict[str, Any]:
        """The operator's keywords on ``rank``, without group_ep."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 100_003 + rank)
        scales = None
        if self.quant_mode:
            common = torch.Generator().manual_seed(self.seed)
            rows = self.world.shared_expert_num + self.experts
            scales = torch.rand(rows, self.hidden, generator=common) + 0.5
        order = torch.rand(self.bs, max(self.experts, 0), generator=generator).argsort(dim=1)
        return self._attributes(rank) | {
            "x": torch.randn(self.bs, self.hidden, generator=generator).bfloat16(),
            "expert_ids": order[:, : self.topk].int(),
            "scales": scales,
            "quant_mode": self.quant_mode,
        }

    def combine_call(self, rank: int, call: dict[str, Any], dispatched: Any) -> dict[str, Any]:
        """The keywords of combine on the outputs of dispatch, after this rank's experts ran."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 100_003 + rank)
        return self._attributes(rank) | {
            "expand_x": self._run_experts(rank, dispatched),
            "expert_ids": call["expert_ids"],
            "assist_info_for_combine": dispatched[2],
            "ep_send_counts": dispatched[4],
            "expert_scales": torch.rand(self.bs, self.topk, generator=generator),
            "expand_scales": dispatched[6],
        }

    def refuse_illegal(self) -> None:
        """Raises ConstraintError when the rules do not allow the layer, before a tensor of any size is made."""
        for rank in {0, self.ranks - 1}:  # a shared rank and a MoE rank
            call = self._described_call(rank)
            contract = resolve_contract("dispatch", call)
            found = violations("dispatch", call, product=self.product, contract=contract.name)
            if any(violation.level == "error" for violation in found):
                product = Resolved(self.product, "of the demo")
                raise constraint_error("dispatch", call, found, product, contract)

    def _described_call(self, rank: int) -> dict[str, Any]:
        """Shapes and dtypes of :meth:`dispatch_call`."""
        rows = self.experts + (1 if self.shared_ranks else 0)
        return self._attributes(rank) | {
            "x": DescribedTensor((self.bs, self.hidden), "bfloat16"),
            "expert_ids": DescribedTensor((self.bs, self.topk), "int32"),
            "scales": DescribedTensor((rows, self.hidden), "float32") if self.quant_mode else None,
            "quant_mode": self.quant_mode,
            "group_ep": "demo",
        }

    @property
    def bytes_at_least(self) -> int:
        """What all ranks hold at the same time: the rows that their experts compute, and their scales."""
        world, row = self.world, self.hidden * (4 + 2)  # fp32, and bf16 for the way home
        rows = sum(
            world.rows_received_at_most(rank, max_bs=self.bs, topk=self.topk)
            for rank in range(self.ranks)
        )
        scales = self.experts * self.hidden * 4 if self.quant_mode else 0
        return rows * row + self.ranks * scales

    def reference(self) -> Expected:
        """All ranks in this process."""
        from ascend_moe import reference

        calls = [self.dispatch_call(rank) for rank in range(self.ranks)]
        options: dict[str, Any] = {"product": self.product}
        dispatched = reference.dispatch_world(calls, **options)
        combined = reference.combine_world(
            [
                self.combine_call(rank, call, output)
                for rank, (call, output) in enumerate(zip(calls, dispatched, strict=True))
            ],
            **options,
        )
        return Expected(list(dispatched), combined)

    def holds(self, rank: int) -> str:
        """What the table says of the rank."""
        if self.world.is_shared_rank(rank):
            return "shared expert"
        local = self.world.local_expert_num
        first = (rank - self.shared_ranks) * local
        return f"expert {first}" if local == 1 else f"experts {first}-{first + local - 1}"

    def _attributes(self, rank: int) -> dict[str, Any]:
        return {
            "ep_world_size": self.ranks,
            "ep_rank_id": rank,
            "moe_expert_num": self.experts,
            "shared_expert_num": 1,
            "shared_expert_rank_num": self.shared_ranks,
        }

    def _run_experts(self, rank: int, dispatched: Any) -> Tensor:
        """The expert of a row: undo the quantisation and multiply by a factor of the expert's own."""
        import torch

        expand_x, dynamic_scales, _, token_nums = dispatched[:4]
        rows = expand_x.float()
        if self.quant_mode:
            rows *= dynamic_scales[:, None]
        local = torch.repeat_interleave(torch.arange(len(token_nums)), token_nums)
        first = (rank - self.shared_ranks) * self.world.local_expert_num
        rows[: len(local)] *= (1.0 + (first + local) / max(self.experts, 1))[:, None]
        outputs: Tensor = rows.bfloat16()
        return outputs
