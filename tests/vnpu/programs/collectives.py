"""Every collective of torch.distributed on the device, with pieces larger than the HCCL buffer."""

from pathlib import Path

import ranks
import torch
import torch.distributed as dist

SIZE = 4


def check(rank: int) -> None:
    everyone = range(SIZE)
    # 3 MB per rank through a buffer of 1 MB: several rounds.
    count = 3 * 2**20 // 4 + 5
    large = torch.full((count,), float(rank + 1)).npu()
    dist.all_reduce(large)
    same(large, torch.full((count,), 10.0))

    half = torch.tensor([1.0, 2.0**-9]).to(torch.bfloat16).npu()
    dist.all_reduce(half)
    same(half, torch.tensor([4.0, 2.0**-7]).to(torch.bfloat16))

    for op, result in ((dist.ReduceOp.MAX, 3), (dist.ReduceOp.MIN, 0), (dist.ReduceOp.PRODUCT, 0)):
        tensor = torch.tensor([rank]).npu()
        dist.all_reduce(tensor, op=op)
        same(tensor, torch.tensor([result]))

    gathered = [torch.zeros(3, dtype=torch.int64).npu() for _ in everyone]
    dist.all_gather(gathered, torch.full((3,), rank).npu())
    same(torch.stack(gathered), torch.arange(SIZE)[:, None].expand(SIZE, 3))

    received = torch.arange(4.0).npu() if rank == 2 else torch.zeros(4).npu()
    dist.broadcast(received, 2)
    same(received, torch.arange(4.0))

    pieces = torch.arange(2.0 * SIZE).npu()
    own = torch.zeros(2).npu()
    dist.reduce_scatter_tensor(own, pieces)
    same(own, torch.arange(2.0 * SIZE).view(SIZE, 2)[rank] * SIZE)

    exchanged = torch.zeros(SIZE, dtype=torch.int32).npu()
    dist.all_to_all_single(exchanged, (torch.arange(SIZE) + 10 * rank).int().npu())
    same(exchanged, (torch.arange(SIZE) * 10 + rank).int())

    # Rank r sends d + 1 elements to rank d; a large piece for rank 0 needs several rounds.
    lengths = [d + 1 if d else 500_000 for d in everyone]
    out = torch.cat([torch.full((lengths[d],), 100.0 * rank + d) for d in everyone]).npu()
    into = torch.zeros(SIZE * lengths[rank]).npu()
    dist.all_to_all_single(into, out, [lengths[rank]] * SIZE, lengths)
    same(into, torch.cat([torch.full((lengths[rank],), 100.0 * r + rank) for r in everyone]))

    # A ring in which everybody sends before it receives.
    message, incoming = torch.full((700_000,), float(rank)).npu(), torch.zeros(700_000).npu()
    work = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, message, (rank + 1) % SIZE),
            dist.P2POp(dist.irecv, incoming, (rank - 1) % SIZE),
        ]
    )
    for item in work:
        item.wait()
    same(incoming, torch.full((700_000,), float((rank - 1) % SIZE)))

    # Launched at the end of a group of calls, which waits for them: the events in between are older.
    backend = dist.group.WORLD._get_backend(torch.device("npu"))
    if hasattr(backend, "_group_start"):  # not in older torch_npu
        sums = [torch.full((1000,), float(rank + n)).npu() for n in range(2)]
        backend._group_start()
        for item in [dist.all_reduce(tensor, async_op=True) for tensor in sums]:
            item.wait()
        backend._group_end()
        same(torch.stack(sums), torch.tensor([[6.0], [10.0]]).expand(2, 1000))

    pair = dist.new_group([1, 3])
    if rank in (1, 3):
        tensor = torch.ones(1).npu()
        dist.all_reduce(tensor, group=pair)
        same(tensor, torch.tensor([2.0]))
    leftovers = list(Path("/dev/shm").glob("*ascend_moe*"))
    assert not leftovers, leftovers


def same(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.equal(got.cpu(), expected), (got, expected)


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print("collectives right")
