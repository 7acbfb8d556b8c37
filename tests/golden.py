"""The golden cases: inputs and outputs of the vendor's own kernels (``tests/data/golden``, see the READMEs there).

A case knows the calls of all ranks and what the kernels returned, and compares. Nothing here computes an expectation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "golden"
PATHS = sorted(FOLDER.rglob("*.json"))


@dataclass
class GoldenCase:
    """One case; ranks are numbered as ``dispatch_world`` orders its calls."""

    name: str
    product: str
    contract: str
    attributes: dict[str, Any]
    arrays: Any

    @classmethod
    def load(cls, path: Path) -> GoldenCase:
        attributes = json.loads(path.read_text())
        contract = "cann-8.2"
        if (
            attributes.get("zero_expert_num")
            or attributes.get("copy_expert_num")
            or attributes.get("const_expert_num")
        ):
            contract = "cann-9.1"
        if path.parent.name == "a2" and attributes["ep_world_size"] < 16:
            contract = "cann-9.1"
        product = "A2" if path.parent.name == "a2" else "A3"
        return cls(path.stem, product, contract, attributes, np.load(path.with_suffix(".npz")))

    @property
    def tp(self) -> int:
        return self.attributes.get("tp_world_size", 1)

    @property
    def ranks(self) -> int:
        return self.attributes["ep_world_size"] * self.tp

    def tensor(self, rank: int, name: str) -> Tensor | None:
        """A stored tensor of one rank (or a common one), bf16 and fp16 restored from their bits."""
        ep_rank, tp_rank = divmod(rank, self.tp)
        prefix = f"e{ep_rank}t{tp_rank}_" if self.tp == 2 else f"r{ep_rank}_"
        for key in (prefix + name, name):
            if key in self.arrays:
                array = self.arrays[key]
                found = torch.from_numpy(array)
                if array.dtype == np.uint16:
                    found = torch.from_numpy(array.view(np.int16)).view(
                        getattr(torch, self.attributes["dtype"])
                    )
                return found
        return None

    def common(self, rank: int) -> dict[str, Any]:
        ep_rank, tp_rank = divmod(rank, self.tp)
        given = self.attributes
        call = {
            "expert_ids": self.tensor(rank, "expert_ids").int(),
            "ep_world_size": given["ep_world_size"],
            "ep_rank_id": ep_rank,
            "moe_expert_num": given["moe_expert_num"],
            "x_active_mask": self.tensor(rank, "x_active_mask"),
            "shared_expert_num": given.get("shared_expert_num", 0),
            "shared_expert_rank_num": given.get("shared_expert_rank_num", 0),
            "global_bs": given["global_bs"],
        }
        if call["x_active_mask"] is not None:
            call["x_active_mask"] = call["x_active_mask"].bool()
        if self.tp == 2:
            call |= {"group_tp": "tp", "tp_world_size": 2, "tp_rank_id": tp_rank}
        special = ("zero_expert_num", "copy_expert_num", "const_expert_num")
        return call | {name: given[name] for name in special if given.get(name)}

    def dispatch_call(self, rank: int) -> dict[str, Any]:
        given = self.attributes
        return self.common(rank) | {
            "x": self.tensor(rank, "x"),
            "scales": self.tensor(rank, "smooth_scales") if given["smooth_scales"] else None,
            "expert_scales": self.tensor(rank, "expert_scales")
            if given.get("expert_scales_given_to_dispatch")
            else None,
            "quant_mode": given["quant_mode"],
            "expert_token_nums_type": given["expert_token_nums_type"],
        }

    def combine_call(self, rank: int, dispatched: Any) -> dict[str, Any]:
        """The kernels' combine input on this rank's handle, as the executor under test dispatched it."""
        expand_x = self.tensor(rank, "combine_in")
        rows = torch.zeros(len(dispatched[0]), expand_x.shape[1], dtype=expand_x.dtype)
        rows[: len(expand_x)] = expand_x
        special = (
            "ori_x",
            "const_expert_alpha_1",
            "const_expert_alpha_2",
            "const_expert_v",
            "shared_expert_x",
        )
        return (
            self.common(rank)
            | {
                "expand_x": rows,
                "assist_info_for_combine": dispatched[2],
                "ep_send_counts": dispatched[4],
                "tp_send_counts": dispatched[5] if self.tp == 2 else None,
                "expert_scales": self.tensor(rank, "expert_scales"),
                "comm_quant_mode": self.attributes.get("comm_quant_mode", 0),
            }
            | {name: tensor for name in special if (tensor := self.tensor(rank, name)) is not None}
        )

    def check_dispatch(self, rank: int, output: Any, *, handle: bool = True) -> None:
        """Every stored output of the kernels, bit for bit; ``handle``: also what only combine reads."""
        expand_x, dynamic_scales, assist_info, token_nums, ep_counts, tp_counts, _ = output
        rows = self.tensor(rank, "expand_x")
        assert torch.equal(expand_x[: len(rows)], rows), f"{self.name} rank {rank}: expand_x"
        if self.attributes["quant_mode"]:
            scales = self.tensor(rank, "dynamic_scales").reshape(-1)
            assert torch.equal(
                dynamic_scales[: len(scales)].view(torch.int32), scales.view(torch.int32)
            ), f"{self.name} rank {rank}: dynamic_scales"
        assist = self.tensor(rank, "assist_info_for_combine")
        if not handle:
            pass
        elif self.product == "A2":
            self._check_ordinals(rank, assist_info, assist)
        else:
            assert torch.equal(assist_info[: assist.numel()], assist.reshape(-1)), (
                f"{self.name} rank {rank}: assist"
            )
        assert torch.equal(token_nums, self.tensor(rank, "expert_token_nums").long()), (
            f"{self.name} rank {rank}: nums"
        )
        counts = self.tensor(rank, "ep_recv_counts")
        assert torch.equal(ep_counts[: len(counts)], counts), (
            f"{self.name} rank {rank}: ep_recv_counts"
        )
        if self.tp == 2:
            assert torch.equal(tp_counts, self.tensor(rank, "tp_recv_counts")), (
                f"{self.name} rank {rank}: tp counts"
            )

    def _check_ordinals(self, rank: int, assist_info: Tensor, stored: Tensor) -> None:
        """A2 stores the sender's table; rows of inactive tokens are not written by the kernel."""
        topk = self.attributes["k"]
        table = stored.reshape(-1, topk)
        ours = assist_info[: self.tensor(rank, "expert_ids").numel()].view(-1, topk)
        assert torch.equal(ours[: len(table)], table), f"{self.name} rank {rank}: ordinals"

    def check_combine(self, rank: int, output: Tensor) -> None:
        written = self.tensor(rank, "combine_out_row_written").bool()
        wanted = self.tensor(rank, "combine_out")
        assert torch.equal(output[written].view(torch.int16), wanted[written].view(torch.int16)), (
            f"{self.name} rank {rank}: combine"
        )
        assert not output[~written].any(), (
            f"{self.name} rank {rank}: rows of inactive tokens must be zero"
        )
