"""Ranks in several servers: windows, queue pairs and HCCL's tables of them in simulated memory.

``kernels/device/rdma_abi.h`` has the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from .group import NONCE, context_bytes
from .simulator import Simulator

ELEMENT_BYTES = 64
MAPPED = 1 << 39
"""Where the window of another process is inside the addresses of its rank."""


@dataclass(frozen=True)
class Wire:
    """Of all queue pairs: how deep, how many to each peer, and where their heads stand at the start.

    ``delivers``: of the queue pairs from a rank to a peer that die, after how many messages.
    """

    depth: int = 16
    queues: int = 1
    head: int = 0
    delivers: Mapping[tuple[int, int], int] = field(default_factory=dict)


class CardGroup:
    """The ranks of a group that lies in several servers: ``servers[r]`` is that of rank ``r``.

    A rank has an input and an output window, both registered with its card, and queue pairs to every rank of every
    other server.
    """

    def __init__(
        self,
        simulator: Simulator,
        servers: Sequence[int],
        window_bytes: int,
        wire: Wire,
        *,
        old_data: bytes = b"",
        hosts: Sequence[int] = (),
        only: int | None = None,
    ) -> None:
        """``old_data`` is what somebody left in the input windows.

        ``hosts`` and ``only``: this process runs one rank; the input windows of all ranks are mapped there, and its
        kernels see its own.
        """
        self._hosts = hosts
        self.simulator, self.servers, self.window_bytes = simulator, servers, window_bytes
        self._wire, self._numbers = wire, count(1)
        ranks = range(len(servers))
        for rank, server in enumerate(servers):
            simulator.server(rank, server)
        self.inputs = [self._input(rank, only, old_data) for rank in ranks]
        self.outputs = [self._output(rank) for rank in ranks]
        local = ranks if only is None else (only,)
        self.tails: dict[tuple[int, int], list[int]] = {}
        self.tables = {rank: self._tables_of(rank) for rank in local}
        self.contexts = {rank: self._context(rank) for rank in local}

    def _input(self, rank: int, only: int | None, old_data: bytes) -> int:
        size, host = self.window_bytes, self._hosts[rank] if self._hosts else None
        if host is None:
            address = self.simulator.alloc(rank, size, "input window")
            self.simulator.write(address, old_data[:size], written=False)
        else:
            address = (rank + 1 << 40) + MAPPED
        if host is not None and rank == only:
            self.simulator.map(rank, address, host, size, "input window")
        self.simulator.add_region(rank, *self._keys(rank, output=False), address, size, host)
        return address

    def _output(self, rank: int) -> int:
        address = self.simulator.alloc(rank, self.window_bytes, "output window")
        keys = self._keys(rank, output=True)
        self.simulator.add_region(rank, *keys, address, self.window_bytes)
        return address

    @staticmethod
    def _keys(rank: int, *, output: bool) -> tuple[int, int]:
        """The key of its owner, and that of peers."""
        return 0x10000 + 4 * rank + 2 * output, 0x20001 + 4 * rank + 2 * output

    def _context(self, rank: int, nonce: int = NONCE) -> int:
        """Windows of other servers have no address."""
        near = [
            address if self.servers[peer] == self.servers[rank] else 0
            for peer, address in enumerate(self.inputs)
        ]
        head = (rank, len(self.inputs), nonce, 0, 1, 0)
        raw = context_bytes(head, self.window_bytes, near)
        return self.simulator.put(rank, raw, "context")

    def _tables_of(self, rank: int) -> int:
        """``QueueTables`` with all it leads to; entries of the own server are empty."""
        doorbell = self.simulator.alloc(rank, 8, "doorbell")
        queues, peers = [], []
        for peer in range(len(self.servers)):
            far = self._linked(rank, peer)
            queues += [
                self._queue(rank, peer, doorbell) if far else bytes(64)
                for _ in range(self._wire.queues)
            ]
            peers.append(
                struct.pack("<IIQ", 4, 24, self._regions(rank, peer)) if far else bytes(16)
            )
        root = struct.pack(
            "<6I5Q",
            *(rank, len(self.servers), self._wire.queues, 64, 56, 16),
            *(self.simulator.put(rank, b"".join(queues), "send queues"), 0, 0, 0),
            self.simulator.put(rank, b"".join(peers), "regions of peers"),
        )
        return self.simulator.put(rank, root, "queue tables")

    def _linked(self, rank: int, peer: int) -> bool:
        """Whether the two have queue pairs."""
        return self.servers[rank] != self.servers[peer]

    def _queue(self, rank: int, peer: int, doorbell: int) -> bytes:
        wire, put, number = self._wire, self.simulator.put, next(self._numbers)
        ring = put(rank, bytes(wire.depth * ELEMENT_BYTES), f"send queue {number}")
        head, tail = (
            put(rank, struct.pack("<I", wire.head), f"{name} of queue {number}")
            for name in ("head", "tail")
        )
        self.tails.setdefault((rank, peer), []).append(tail)
        self.simulator.add_queue(
            *(rank, peer, number, ELEMENT_BYTES, wire.depth, ring, head, tail, doorbell),
            wire.delivers.get((rank, peer), -1),
        )
        return struct.pack(
            "<IIQIIQQiIQII",
            *(number, 0, ring, ELEMENT_BYTES, wire.depth, head, tail, 0, 0, doorbell, 4, 0),
        )

    def _regions(self, rank: int, peer: int) -> int:
        """Local input, remote input, local output, remote output."""
        places = (
            (self.inputs[rank], self._keys(rank, output=False)[0]),
            (self.inputs[peer], self._keys(peer, output=False)[1]),
            (self.outputs[rank], self._keys(rank, output=True)[0]),
            (self.outputs[peer], self._keys(peer, output=True)[1]),
        )
        raw = b"".join(struct.pack("<QQII", self.window_bytes, *place, 0) for place in places)
        return self.simulator.put(rank, raw, f"regions of rank {peer}")
