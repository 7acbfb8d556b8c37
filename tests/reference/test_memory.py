"""Memory of outputs that nobody sees any more serves the next world of the same kind; nobody may notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ascend_moe.reference import DispatchOutput, combine_world, dispatch_world

RANKS, BS, HIDDEN = 4, 256, 1024
ROWS = RANKS * BS  # A: 2 MiB of bf16 per rank, enough for a mapping


def _calls(expert: int, active: int, number: float) -> list[dict[str, Any]]:
    """The first ``active`` tokens of each rank, on rank 0 one more, go to one expert; all are filled with ``number``.

    So the rows that arrive, 2 KiB each, end in the middle of a page.
    """
    return [
        {
            "x": torch.full((BS, HIDDEN), number).bfloat16(),
            "expert_ids": torch.full((BS, 1), expert, dtype=torch.int32),
            "x_active_mask": torch.arange(BS) < active + (rank == 0),
            "ep_world_size": RANKS,
            "ep_rank_id": rank,
            "moe_expert_num": RANKS,
        }
        for rank in range(RANKS)
    ]


def _require(outputs: list[DispatchOutput], expert: int, active: int, number: float) -> None:
    for rank, output in enumerate(outputs):
        received = RANKS * active + 1 if rank == expert else 0
        assert output.expand_x.shape == (ROWS, HIDDEN)
        assert output.expand_x[:received].eq(number).all()
        assert output.expand_x[received:].eq(0).all()


@pytest.mark.parametrize(("expert", "active"), [(1, 101), (1, 3), (1, 200), (2, 101)])
def test_padding_is_zero_whatever_was_written_there(expert: int, active: int):
    outputs = dispatch_world(_calls(1, 101, 1.0))
    address = outputs[1].expand_x.data_ptr()
    for output in outputs:
        for tensor in output:
            tensor.fill_(-1)
    del outputs, output, tensor
    again = dispatch_world(_calls(expert, active, 2.0))
    assert again[1].expand_x.data_ptr() == address
    _require(again, expert, active, 2.0)
    for rank, output in enumerate(again):
        received = RANKS * active + 1 if rank == expert else 0
        assert output.dynamic_scales.eq(0).all()
        assert output.assist_info_for_combine[3 * received :].eq(0).all()


@pytest.mark.parametrize(
    "alias",
    [
        lambda tensor: tensor,
        lambda tensor: tensor[5:],
        lambda tensor: tensor.view(torch.int16).numpy(),
        lambda tensor: tensor.untyped_storage(),
        lambda tensor: torch.utils.dlpack.to_dlpack(tensor),
    ],
    ids=["tensor", "view", "numpy", "storage", "dlpack"],
)
def test_what_somebody_sees_is_left_alone(alias: Callable[[Tensor], object]):
    outputs = dispatch_world(_calls(1, 7, 1.0))
    address, seen = outputs[1].expand_x.data_ptr(), alias(outputs[1].expand_x)
    del outputs
    again = dispatch_world(_calls(1, 7, 2.0))
    assert again[1].expand_x.data_ptr() != address
    del seen
    assert dispatch_world(_calls(1, 7, 3.0))[1].expand_x.data_ptr() == address
    _require(again, 1, 7, 2.0)


def test_sums_that_are_kept_do_not_change():
    """BS 2048: sums of 8 MiB, in a mapping too."""
    calls = [
        {
            "x": torch.full((2048, HIDDEN), 1.0).bfloat16(),
            "expert_ids": torch.zeros(2048, 1, dtype=torch.int32),
            "ep_world_size": 2,
            "ep_rank_id": rank,
            "moe_expert_num": 2,
        }
        for rank in range(2)
    ]
    outputs = dispatch_world(calls, check=False)

    def combined(weight: float) -> list[Tensor]:
        homeward = [
            {name: value for name, value in call.items() if name != "x"}
            | {
                "expand_x": output.expand_x,
                "assist_info_for_combine": output.assist_info_for_combine,
                "ep_send_counts": output.ep_recv_counts,
                "expert_scales": torch.full((2048, 1), weight),
            }
            for call, output in zip(calls, outputs, strict=True)
        ]
        return combine_world(homeward, check=False)

    kept = combined(2.0)[1]
    assert all(sums.eq(3.0).all() for sums in combined(3.0))
    assert kept.eq(2.0).all()
