"""What the oracle needs for a whole world in one process: by default 768 ranks, BS 4, H 1024, K 8, 768 experts, bf16.

Checks are left out (``check=False``) and experts are the identity. The outputs of one round are given back before the
next one starts, outside the clock, as a test that looks at one world after the other does. From the second round on
their memory serves again (``ascend_moe/outputs.py``): the median is the steady state, the first round is told apart,
because it touches every page for the first time. Milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

from ascend_moe.bootstrap import import_torch

import_torch()

import torch  # noqa: E402

from ascend_moe.reference import combine_world, dispatch_world  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=768, help="EP ranks, one expert each")
    parser.add_argument("--bs", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--topk", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    sizes = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    attributes = [
        {"ep_world_size": sizes.ranks, "ep_rank_id": rank, "moe_expert_num": sizes.ranks}
        for rank in range(sizes.ranks)
    ]
    ids = [
        torch.rand(sizes.bs, sizes.ranks).argsort(dim=1)[:, : sizes.topk].int() for _ in attributes
    ]
    weights = [torch.rand(sizes.bs, sizes.topk).softmax(dim=1) for _ in attributes]
    tokens = [torch.randn(sizes.bs, sizes.hidden).bfloat16() for _ in attributes]
    away = [
        {"x": x, "expert_ids": chosen, **one}
        for x, chosen, one in zip(tokens, ids, attributes, strict=True)
    ]
    times: dict[str, list[float]] = {"dispatch": [], "combine": [], "round trip": []}
    for _ in range(sizes.rounds):
        start = time.perf_counter()
        dispatched = dispatch_world(away, check=False)
        between = time.perf_counter()
        home = [
            {
                "expand_x": output.expand_x,
                "expert_ids": chosen,
                "assist_info_for_combine": output.assist_info_for_combine,
                "ep_send_counts": output.ep_recv_counts,
                "expert_scales": weight,
                **one,
            }
            for output, chosen, weight, one in zip(
                dispatched, ids, weights, attributes, strict=True
            )
        ]
        again = time.perf_counter()
        combined = combine_world(home, check=False)
        end = time.perf_counter()
        times["dispatch"].append(between - start)
        times["combine"].append(end - again)
        times["round trip"].append(between - start + end - again)
        del dispatched, home, combined
    for op, seconds in times.items():
        print(
            f"{op:12}{statistics.median(seconds) * 1e3:9.1f} ms   "
            f"(best {min(seconds) * 1e3:.1f}, first {seconds[0] * 1e3:.1f})"
        )


if __name__ == "__main__":
    main()
