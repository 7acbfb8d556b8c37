"""A few rounds of ``scripts/attack survive`` and of the example; and what a dead rendezvous store means."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cpu_attack
import cpu_survive
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
import worlds

import ascend_moe

EXAMPLE = Path(__file__).parents[2] / "examples" / "survive.py"


@pytest.mark.parametrize("way", cpu_survive.WAYS)
def test_a_round(way: str):
    before = cpu_attack.left_behind()
    pairs, _, wrong = cpu_survive.attack(way, seed=5)  # two deaths
    assert wrong == []
    assert pairs >= cpu_survive.PAIRS_AFTER
    assert cpu_attack.left_behind() == before


@pytest.mark.ci
@pytest.mark.parametrize("way", cpu_survive.WAYS)
def test_more_rounds(way: str):
    wrong = [text for seed in range(1000, 1012) for text in cpu_survive.attack(way, seed)[2]]
    assert wrong == []


def test_the_example():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--rounds", "2", "--seed", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 rounds: seven ranks went on within" in done.stdout


def _serve_and_lose_the_store(rank: int, port: int, way: str, pipe) -> None:
    """Rank 0 holds the store."""
    os.environ.update({"ASCEND_MOE_TIMEOUT_S": "5", "ASCEND_MOE_CPU_TRANSPORT": way})
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    worlds.GROUPS.update(ep=dist.group.WORLD, tp=None)
    one = cpu_survive.Survivor(rank, 3, 0, {})
    one.pair()
    pipe.send(os.getpid())
    said = "nothing"
    try:
        while True:
            one.pair()
    except ascend_moe.PeerError as error:
        try:
            began = time.monotonic()
            one.recover(error)
            one.pair()
            said = "went on"
        except RuntimeError as refusal:
            said = f"{time.monotonic() - began < 15} {refusal}"
    pipe.send(said)
    signal.pause()


@pytest.mark.parametrize("way", cpu_survive.WAYS)
def test_the_holder_of_the_store_dies(way: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("fork")
    pipes = [context.Pipe() for _ in range(3)]
    ranks = [
        context.Process(
            target=_serve_and_lose_the_store, args=(rank, port, way, pipes[rank][1]), daemon=True
        )
        for rank in range(3)
    ]
    try:
        for process in ranks:
            process.start()
        pids = [ours.recv() for ours, _ in pipes]
        os.kill(pids[0], signal.SIGKILL)
        for ours, _ in pipes[1:]:
            assert ours.poll(60)
            said = ours.recv()
            if way == "windows":
                assert said == "went on"
            else:
                assert said.startswith("True ")
                assert "the rendezvous store does not answer" in said
    finally:
        for process in ranks:
            process.kill()
            process.join()
