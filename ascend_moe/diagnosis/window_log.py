"""The stock message 'HCCL_BUFFSIZE is too SMALL ...' recomputed from the numbers that it prints.

A line of tiling names maxBs, h, epWorldSize, localMoeExpertNum, k and the two slot sizes, then the sum in
MB. That sum is rounded down plus one, so it is one too large when the size is exact.
"""

from __future__ import annotations

import re

from ascend_moe.contract.buffsize import MB, Traffic, Window, mesh_a3, mesh_v2_a3
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2
from ascend_moe.contract.signature import CANN_9_1

_START = re.compile(r"HCCL[_ ]BUFFSIZE(_EP|_TP)? is too (SMALL|small)")
_PAIR = re.compile(r"\b([A-Za-z_]\w{0,40})\s?=\s?(\d{1,15})\b(?!\s?MB)")
_NEEDED = re.compile(r"NEEDED\w{0,40}\b.{0,400}?=\s{0,3}(\d{1,15})\s?MB")
_HAVE = re.compile(r"HCCL_BUFFSIZE(?:_EP|_TP)?\s{0,3}=\s{0,3}(\d{1,15})\s?MB")
_SIZES = ("maxbs", "h", "epworldsize", "localmoeexpertnum", "k")
_MESHES = ((FULLMESH, mesh_a3), (FULLMESH_V2, mesh_v2_a3))


def window_details(line: str) -> list[str]:
    """Sentences about the numbers of one line; empty where it prints none."""
    start = _START.search(line)
    text = line if start is None else line[start.start() :]
    numbers = {name.lower(): int(value) for name, value in _PAIR.findall(text)}
    needed, have = _NEEDED.search(text), _HAVE.findall(text)
    printed = int(needed[1]) if needed else None
    available = int(have[-1]) if have else None
    sentences: list[str] = []
    if available is not None:
        sentences.append(f"the buffer has {available} MB.")
    path, exact = _recomputed(numbers, printed)
    if exact is not None:
        mb = -(-exact // MB)
        sentences.append(f"recomputed: {exact} bytes, so HCCL_BUFFSIZE={mb} is enough.")
        if printed is not None and printed != mb:
            sentences.append(f"the log says {printed} MB: stock messages add one to an exact size.")
        if path is not None and available is not None:
            window = Window("A3", CANN_9_1, path, "dispatch")
            fits = window.largest_max_bs(_traffic(numbers), available)
            sentences.append(f"largest max_bs that fits {available} MB: {fits}.")
        sentences.append(f"export HCCL_BUFFSIZE={mb}")
    elif printed is not None:
        sentences.append(f"the log asks for {printed} MB.")
        sentences.append(f"export HCCL_BUFFSIZE={printed}")
    return sentences


def _recomputed(numbers: dict[str, int], printed: int | None) -> tuple[str | None, int | None]:
    """(path, exact bytes) of an A3 full-mesh line; None for what its numbers do not tell."""
    exact = _sum_of_slots(numbers)
    if not all(name in numbers for name in _SIZES):
        return None, exact
    for path, formula in _MESHES:
        size = formula(_traffic(numbers)).bytes
        if size == exact or (exact is None and printed == size // MB + 1):
            return path, size
    return None, exact


def _sum_of_slots(numbers: dict[str, int]) -> int | None:
    """The sum that the line describes, from the slot sizes that it prints."""
    try:
        arriving = numbers["maxbs"] * numbers["epworldsize"] * numbers["localmoeexpertnum"]
        returning = numbers["maxbs"] * (numbers["k"] + numbers.get("sharedexpertnum", 0))
        return 2 * (
            arriving * numbers["tokenneedsizedispatch"]
            + returning * numbers["tokenneedsizecombine"]
        )
    except KeyError:
        return None


def _traffic(numbers: dict[str, int]) -> Traffic:
    return Traffic(
        max_bs=numbers["maxbs"],
        hidden=numbers["h"],
        topk=numbers["k"],
        ep=numbers["epworldsize"],
        moe_experts=numbers["localmoeexpertnum"] * numbers["epworldsize"],
        local_experts=numbers["localmoeexpertnum"],
        shared_experts=numbers.get("sharedexpertnum", 0),
    )
