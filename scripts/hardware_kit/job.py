"""What a rank is told; apart from rank.py because that imports torch_npu."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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

    def path(self, name: str) -> Path:
        return Path(self.folder) / f"{self.phase}.{name}"
