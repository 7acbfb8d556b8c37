"""Graph capture of dispatch, an expert and combine: replays read new data and measure waits; waiting is refused."""

import time
from collections.abc import Callable

import ranks
import torch
import torch_npu

SIZE = 2
LATE_RANK, LATE_S = 1, 0.2


def check(rank: int) -> None:
    group = {
        "group_ep": ranks.GROUPS["ep"],
        "ep_world_size": SIZE,
        "ep_rank_id": rank,
        "moe_expert_num": 4,
    }
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(8, 1024, generator=generator).to(torch.bfloat16).npu()
    ids = torch.rand(8, 4, generator=generator).argsort(dim=1)[:, :2].int().npu()
    weights = torch.rand(8, 2, generator=generator).npu()
    waits = torch.zeros(SIZE, dtype=torch.int64).npu()
    if ranks.has_waits():
        group["performance_info"] = waits

    def layer() -> torch.Tensor:
        rows, _, assist, _, counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(x, ids, **group)
        return torch_npu.npu_moe_distribute_combine_v2(
            rows * 2 + 1, ids, assist, counts, weights, **group
        )

    first = layer().cpu()
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        captured = layer()
        captured_sum = captured.float().sum()
    results = []
    for _ in range(3):
        x.copy_(torch.randn(8, 1024, generator=generator).to(torch.bfloat16))
        graph.replay()
        torch.npu.synchronize()
        results.append(captured.cpu())
        assert torch.equal(results[-1], layer().cpu())
        assert captured_sum.item() == captured.float().sum().item()
    waits.zero_()
    torch.npu.synchronize()
    time.sleep(LATE_S * (rank == LATE_RANK))
    graph.replay()
    torch.npu.synchronize()
    if rank != LATE_RANK and ranks.has_waits():
        assert int(waits[LATE_RANK]) > 0.8e6 * LATE_S, waits
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(first, results[0])

    # A second stream that joins the capture and is joined back.
    side, fork, join = torch.npu.Stream(), torch.npu.Event(), torch.npu.Event()
    a, forked = torch.ones(4).npu(), torch.npu.NPUGraph()
    with torch.npu.graph(forked):
        main = torch.npu.current_stream()
        b = a * 3
        fork.record()
        with torch.npu.stream(side):
            side.wait_event(fork)
            c = b + 1
            join.record()
        main.wait_event(join)
        d = c * 2
    a.fill_(2)
    forked.replay()
    torch.npu.synchronize()
    assert d.tolist() == [14.0] * 4

    for wait in (lambda: x.cpu(), torch.npu.synchronize, lambda: x.nonzero()):
        assert "captur" in refusal(x, wait)
    assert (x * 0 + 1).sum().item() == x.numel()  # and life goes on


def refusal(x: torch.Tensor, wait: Callable[[], object]) -> str:
    """The text with which a call that waits is refused during a capture."""
    try:
        with torch.npu.graph(torch.npu.NPUGraph()):
            x + 1
            wait()
    except RuntimeError as error:
        return str(error)
    return "not refused"


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print("graphs right")
