"""Layers with ASCEND_MOE_TUNING, which each rank may have for itself.

usage: tuning.py CASES

CASES is JSON, a list of objects: ``name``; ``files``, the variable on each of two EP ranks; ``tp``, the size of the TP
group (then the variable of each of a pair). Every rank prints "CASE rank R: TEXT": "right" when one layer gave what the
oracle says, or the error.
"""

import json
import os
import sys
from typing import Any

import ranks
import torch
import torch_npu

from kernels.proof.programs import layer_program
from kernels.proof.shapes import Shape

SIZE = 2


def layer(rank: int, tp: int) -> None:
    shape = Shape(ranks=SIZE, max_batch=8, hidden=1024, topk=2, local_experts=1, tp=tp)
    dispatch, combine = layer_program("tuning", shape, 1).steps
    place = {"group_ep": ranks.GROUPS["ep"]} | ({"group_tp": ranks.GROUPS["tp"]} if tp == 2 else {})
    out = torch_npu.npu_moe_distribute_dispatch_v2(**on_npu(dispatch.calls[rank]), **place)
    rows = int(dispatch.expected[rank].tp_recv_counts.sum()) if tp == 2 else 0
    rows = rows or int(dispatch.expected[rank].ep_recv_counts[SIZE - 1])
    assert torch.equal(out[0][:rows].cpu(), dispatch.expected[rank].expand_x[:rows])
    result = torch_npu.npu_moe_distribute_combine_v2(**on_npu(combine.calls[rank]), **place)
    assert torch.equal(result.cpu(), combine.expected[rank])


def on_npu(call: dict[str, Any]) -> dict[str, Any]:
    """Without the names of groups."""
    return {
        name: value.npu() if isinstance(value, torch.Tensor) else value
        for name, value in call.items()
        if not name.startswith("group_")
    }


def play(rank: int, case: dict[str, Any]) -> None:
    os.environ["ASCEND_MOE_TUNING"] = case["files"][rank // case["tp"]]
    if case["tp"] == 2:  # the ranks of a pair differ
        os.environ["ASCEND_MOE_TUNING"] = case["files"][rank % 2]
    try:
        layer(rank, case["tp"])
        text = "right"
    except RuntimeError as error:
        text = " ".join(str(error).split())
    print(f"{case['name']} rank {rank}: {text}\n", end="", flush=True)
    os._exit(0)


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        ranks.run(SIZE * case["tp"], play, case, tp=case["tp"])
    os._exit(0)
