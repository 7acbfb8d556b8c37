"""Whose kernels serve a group: what the ranks say before anything of ours runs, and what comes of it.

usage: choice.py HOW CASE...

HOW is "store" (calls through ascend_moe, whose Python has a rendezvous store) or "hccl" (bare torch_npu). Each case has
processes of its own; each rank prints "CASE rank R: TEXT". TEXT is "right", when one layer gave what the oracle says,
or the error. Rank 1 is the one that is different.
"""

import os
import sys
import time

import ranks
import torch
import torch_npu

import ascend_moe
from ascend_moe import opening
from ascend_moe.reference import combine_world, dispatch_world

SIZE, OTHER = 3, 1
HIDDEN, TOPK, TOKENS, EXPERTS = 1024, 2, 4, 2 * SIZE
AWAY = {"away": "1"}
HOW = sys.argv[1]

# By case: what the environment of rank 1 has, and that of the others.
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "all_well": ({}, {}),
    "off": ({"ASCEND_MOE_KERNELS": "off"}, {}),
    "off_but_required": ({"ASCEND_MOE_KERNELS": "off"}, {"ASCEND_MOE_KERNELS": "require"}),
    "unknown_value": ({"ASCEND_MOE_KERNELS": "maybe"}, {}),
    "absent": (AWAY, {}),
    "required_everywhere": ({}, {"ASCEND_MOE_KERNELS": "require"}),
    "other_way": ({"how": "bare"}, {}),
    "no_library": ({"ASCEND_CUSTOM_OPP_PATH": ""}, {}),
    "other_version": ({"ASCEND_CUSTOM_OPP_PATH": "", "verdict": "1"}, {}),
    "no_library_but_required": (
        {"ASCEND_CUSTOM_OPP_PATH": ""},
        {"ASCEND_MOE_KERNELS": "require"},
    ),
}
# A way to the windows that rank 1 does not find.
CASES |= {
    f"broken_{way}": ({"ASCEND_MOE_WINDOWS": "shmem"}, {"ASCEND_MOE_WINDOWS": way})
    for way in ("kfc", "tiling", "virtual-npu")
}
# Nobody finds it: started with ASCEND_MOE_VNPU_HIDE.
CASES |= {
    f"no_{way}": ({"ASCEND_MOE_WINDOWS": way}, {"ASCEND_MOE_WINDOWS": way})
    for way in ("kfc", "tiling")
}


def layer(rank: int, how: str) -> None:
    """A dispatch, experts that double, a combine; compared with the oracle."""
    group, where = ranks.GROUPS["ep"], (SIZE, rank, EXPERTS)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SIZE, TOKENS, HIDDEN, generator=generator).bfloat16()
    ids = torch.rand(SIZE, TOKENS, EXPERTS, generator=generator).argsort(dim=2)[..., :TOPK].int()
    weights = torch.rand(SIZE, TOKENS, TOPK, generator=generator)
    calls = [
        {
            "x": x[r],
            "expert_ids": ids[r],
            "ep_world_size": SIZE,
            "ep_rank_id": r,
            "moe_expert_num": EXPERTS,
        }
        for r in range(SIZE)
    ]
    handles = dispatch_world(calls, product="A3", contract="cann-9.1")
    back = [
        {name: value for name, value in call.items() if name != "x"}
        | {
            "expand_x": (handle.expand_x * 2).bfloat16(),
            "assist_info_for_combine": handle.assist_info_for_combine,
            "ep_send_counts": handle.ep_recv_counts,
            "expert_scales": weight,
        }
        for call, handle, weight in zip(calls, handles, weights, strict=True)
    ]
    wanted = combine_world(back, product="A3", contract="cann-9.1")[rank]
    api = ascend_moe if how == "store" else torch_npu
    own_ids = ids[rank].npu()
    out = api.npu_moe_distribute_dispatch_v2(x[rank].npu(), own_ids, group, *where)
    result = api.npu_moe_distribute_combine_v2(
        (out[0] * 2).bfloat16(), own_ids, out[2], out[4], weights[rank].npu(), group, *where
    )
    assert torch.equal(result.cpu(), wanted)


def check(rank: int, case: str) -> None:
    changes = CASES[case][0 if rank == OTHER else 1]
    os.environ.update(changes)
    if changes is AWAY:
        time.sleep(15)  # alive, but it makes no call
        os._exit(0)
    if "verdict" in changes:  # says ours, as a library of another version would
        opening.STOCK = int(changes["verdict"])
    start = time.monotonic()
    try:
        layer(rank, changes.get("how", HOW))
        torch.npu.synchronize()
        text = "right"
    except RuntimeError as error:
        text = " ".join(str(error).split())
    took = time.monotonic() - start
    print(f"{case} rank {rank}: {text} (after {took:.0f} s)\n", end="", flush=True)
    if text != "right":
        time.sleep(1)  # the others see who waits for them, not that this one has gone
    os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        other = CASES[name][0]
        apart = {OTHER: other} if "ASCEND_CUSTOM_OPP_PATH" in other else {}
        ranks.run(SIZE, check, name, timeout=90, apart=apart)
