"""What a rank is told; apart from rank.py because that imports torch_npu."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ascend_moe.hardware.cann import STAND_IN
from ascend_moe.vnpu.environment import DEVICES


@dataclass(frozen=True)
class Job:
    """One rank of one phase, in one attempt."""

    folder: str
    phase: str
    attempt: int
    rank: int
    world: int
    product: str
    sweep: int
    short: bool
    rounds: int
    first: int  # the case to begin with
    servers: int = 1
    tuning: bool = False

    def path(self, name: str) -> Path:
        return Path(self.folder) / f"{self.phase}.{name}"

    @property
    def device(self) -> int:
        """Ranks stand on the servers in order; the virtual NPU numbers the devices of all servers in one row."""
        server, number = divmod(self.rank, self.world // self.servers)
        if self.servers > 1 and STAND_IN in os.environ:
            return server * (int(os.environ[DEVICES]) // self.servers) + number
        return number

    @property
    def opposite(self) -> int:
        """The rank with the same number in the other of two servers."""
        return (self.rank + self.world // 2) % self.world
