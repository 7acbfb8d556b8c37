"""Eight ranks serve, one is killed, the other seven go on: with the same results, because each expert has a copy.

On CPU:                  python examples/survive.py [--rounds 20] [--limit 5]
On the virtual NPU:      ascend-moe run --devices 8 examples/survive.py --npu [--rounds 20] [--limit 5]

Each round starts eight ranks, kills one at a random moment (the one that holds the rendezvous store as likely as any
other), and measures when each of the others has its next correct combine. What a rank does is in `Engine`, what it
does about a dead peer in `Engine.recover`. docs/elastic.md explains it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import time
from multiprocessing.connection import Connection, wait
from typing import Any

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # with torch_npu and no CANN
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a store that died is no news

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import ascend_moe

RANKS, TOKENS, HIDDEN, TOPK = 8, 8, 1024, 4
EXPERTS = 16
SLOTS = 4
"""Experts that a rank holds: 32 places for 16 experts, so each is on two ranks."""
GRACE_S = 2.0
"""After the time limit of the calls."""


def expert_at(rank: int, slot: int) -> int:
    """Which expert a rank holds in a slot: rank r and rank r + 4 hold the same ones."""
    return (rank * SLOTS + slot) % EXPERTS


class Engine:
    """One rank of a serving engine."""

    def __init__(self, rank: int, port: int, device: str) -> None:
        address, backend = f"tcp://127.0.0.1:{port}", "gloo"
        if device == "npu":
            import torch_npu

            torch_npu.npu.set_device(rank)
            backend = "hccl"
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=RANKS)
        self.rank, self.device = rank, device
        self.attributes = {
            "group_ep": ascend_moe.hccl_comm_name(dist.group.WORLD, rank),
            "ep_world_size": RANKS,
            "ep_rank_id": rank,
            "moe_expert_num": RANKS * SLOTS,
            "elastic_info": None,
        }
        self.dead: set[int] = set()
        self.place(list(range(RANKS)))
        self.random = torch.Generator().manual_seed(rank)

    def place(self, left: list[int]) -> None:
        """The operators number experts by the ranks that are left: for each expert, one id of a copy."""
        ids: dict[int, list[int]] = {}
        for new_rank, rank in enumerate(left):
            for slot in range(SLOTS):
                ids.setdefault(expert_at(rank, slot), []).append(new_rank * SLOTS + slot)
        missing = [expert for expert in range(EXPERTS) if expert not in ids]
        if missing:
            raise RuntimeError(f"no copy of experts {missing} is left: restart")
        # Ranks choose different copies, so that both work.
        self.id_of = torch.tensor([ids[e][self.rank % len(ids[e])] for e in range(EXPERTS)])

    def step(self) -> bool:
        """One layer of one batch; whether the result is right. Expert e multiplies by e + 1."""
        x = torch.randn(TOKENS, HIDDEN, generator=self.random).bfloat16()
        chosen = torch.rand(TOKENS, EXPERTS, generator=self.random).argsort(dim=1)[:, :TOPK]
        weights = torch.rand(TOKENS, TOPK, generator=self.random)
        wanted = x.float() * (weights * (chosen + 1)).sum(dim=1, keepdim=True)
        ids = self.id_of[chosen].int()
        x, ids, weights = (tensor.to(self.device) for tensor in (x, ids, weights))
        rows, _, assist_info, per_expert, counts, _, _ = ascend_moe.npu_moe_distribute_dispatch_v2(
            x, ids, **self.attributes
        )
        start = 0
        for slot, count in enumerate(per_expert.tolist()):
            rows[start : start + count] *= expert_at(self.rank, slot) + 1
            start += count
        y = ascend_moe.npu_moe_distribute_combine_v2(
            rows, ids, assist_info, counts, weights, **self.attributes
        )
        ascend_moe.confirm(self.attributes["group_ep"])  # before the result goes anywhere
        return torch.allclose(y.cpu().float(), wanted, rtol=0.05, atol=0.05)

    def recover(self) -> None:
        """Goes on without the ranks that are gone. If others die, or others know of more, once more."""
        group = self.attributes["group_ep"]
        self.dead |= {*ascend_moe.missing_ranks(group)}
        for _ in range(RANKS):
            if self.rank in self.dead:
                break  # the others take this rank for dead, and go on without it
            try:
                info = ascend_moe.shrink(group, sorted(self.dead))
            except ascend_moe.PeerError as error:
                self.dead |= {*error.ranks}
                continue
            self.attributes["elastic_info"] = info
            words = info.tolist()
            self.place(words[4 + RANKS :][: words[1]])
            return
        raise RuntimeError(f"rank {self.rank} cannot go on without ranks {sorted(self.dead)}")


def run_rank(rank: int, port: int, limit: float, device: str, pipe: Connection) -> None:
    """Serves until told to stop; tells when a peer was missed, and when it served again."""
    os.environ["ASCEND_MOE_TIMEOUT_S"] = f"{limit:g}"
    os.environ.setdefault("ASCEND_MOE_KERNELS", "require")  # on an NPU, CANN's own cannot go on
    torch.set_num_threads(1)
    engine = Engine(rank, port, device)
    told: list[Any] = [rank]
    steps = 0
    while not pipe.poll():
        try:
            if not engine.step():
                sys.exit(f"rank {rank}: wrong rows")
        except RuntimeError:  # on CPU a PeerError; on an NPU whatever synchronised first
            told.append(time.monotonic())
            engine.recover()
            told += [sorted(engine.dead), time.monotonic()]
            if not engine.step():
                sys.exit(f"rank {rank}: wrong rows")
            pipe.send([*told, time.monotonic()])
        if steps == 3:
            pipe.send(rank)  # serves
        steps += 1
    os._exit(0)  # groups of dead ranks cannot be closed in good order


def play(limit: float, device: str, chance: random.Random) -> str:
    """One round; returns its line of the table. Raises RuntimeError when somebody did not go on in time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("fork")
    pipes, ranks = [], []
    for rank in range(RANKS):
        ours, theirs = context.Pipe()
        pipes.append(ours)
        ranks.append(
            context.Process(target=run_rank, args=(rank, port, limit, device, theirs), daemon=True)
        )
        ranks[-1].start()
        theirs.close()
    try:
        if any(pipe.recv() != rank for rank, pipe in enumerate(pipes)):
            raise RuntimeError("a rank did not begin to serve")
        time.sleep(chance.random() * 0.3)
        victim = chance.randrange(RANKS)
        killed = time.monotonic()
        os.kill(ranks[victim].pid, signal.SIGKILL)
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank != victim}
        told = []
        while waiting:
            ready = wait(list(waiting), max(killed + limit + GRACE_S - time.monotonic(), 0.0))
            if not ready:
                raise RuntimeError(f"ranks {sorted(waiting.values())} did not go on in time")
            for pipe in ready:
                told.append(pipe.recv())
                waiting.pop(pipe)
    finally:
        for process in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)  # or they would survive each other to the end
        for process, pipe in zip(ranks, pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()
    if any(dead != [victim] for _, _, dead, _, _ in told):
        raise RuntimeError(f"rank {victim} was killed, named were {[one[2] for one in told]}")
    found, met, served = (max(one[at] - killed for one in told) * 1e3 for at in (1, 3, 4))
    return f"{victim:4d}{found:12.0f}{met - found:10.0f}{served - met:14.0f}{served:10.0f}"


def main() -> int:
    """Exit code 0: every round went on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--limit", type=float, default=5.0, help="ASCEND_MOE_TIMEOUT_S")
    parser.add_argument("--npu", action="store_true", help="on NPUs, as ascend-moe run has them")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.npu:
        import torch_npu  # noqa: F401 - once, before ranks are forked
    chance = random.Random(arguments.seed)
    print("killed  named, ms    shrink    next combine     total")
    for _ in range(arguments.rounds):
        print(play(arguments.limit, "npu" if arguments.npu else "cpu", chance), flush=True)
    print(f"{arguments.rounds} rounds: seven ranks went on within {arguments.limit:g} s + 2 s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
