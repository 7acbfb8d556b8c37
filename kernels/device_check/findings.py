"""What a check says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """One broken rule at one line of a source."""

    file: Path
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        place = self.file
        if place.is_relative_to(Path.cwd()):
            place = place.relative_to(Path.cwd())
        return f"{place}:{self.line}: {self.rule}: {self.text}"
