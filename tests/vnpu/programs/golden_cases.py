"""The operators of the virtual NPU against the vendor's kernels, through torch_npu's own functions.

usage: golden_cases.py RANKS TP PRODUCT [OFF]

The rank OFF does not want our kernels. On A2 ours (ASCEND_MOE_KERNELS=require) have a handle of their own, which only
combine judges.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import ranks
import torch_npu
from golden import PATHS, GoldenCase

OWN_HANDLE = os.environ.get("ASCEND_MOE_KERNELS") == "require"
SIZE, TP, PRODUCT = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


def check(rank: int, paths: list[Path]) -> None:
    if [str(rank)] == sys.argv[4:]:
        os.environ["ASCEND_MOE_KERNELS"] = "off"
    for path in paths:
        case = GoldenCase.load(path)
        call = ranks.on_npu(case.dispatch_call(rank))
        output = [tensor.cpu() for tensor in torch_npu.npu_moe_distribute_dispatch_v2(**call)]
        case.check_dispatch(rank, output, handle=PRODUCT == "A3" or not OWN_HANDLE)
        call = ranks.on_npu(case.combine_call(rank, output))
        case.check_combine(rank, torch_npu.npu_moe_distribute_combine_v2(**call).cpu())


if __name__ == "__main__":
    found = [(path, GoldenCase.load(path)) for path in PATHS]
    chosen = [
        path for path, case in found if (case.ranks, case.tp, case.product) == (SIZE, TP, PRODUCT)
    ]
    ranks.run(SIZE, check, chosen, tp=TP)
    print(f"{len(chosen)} golden cases equal on {SIZE} ranks ({PRODUCT}, tp {TP})")
