"""Two servers of the virtual NPU, 16 processes: what a program said there (vnpu/programs/server_layers.py)."""

from __future__ import annotations

import re

SERVERS = {"ASCEND_MOE_VNPU_DEVICES": "16", "ASCEND_MOE_VNPU_SERVERS": "2"}


def played(
    algorithm: str,
    run,
    *cases: str,
    product: str = "A2",
    code: int | None = 0,
    **environment: str,
) -> str:
    return run(
        *("server_layers.py", product, algorithm, 16, *cases),
        product=product,
        environment=SERVERS | environment,
        timeout=280,
        code=code,
    ).stdout


def texts(said: str) -> dict[tuple[str, int], str]:
    """By case and rank, what the ranks printed."""
    found = re.findall(r"^(\w+) rank (\d+): (.*)", said, re.MULTILINE)
    return {(case, int(rank)): text for case, rank, text in found}
