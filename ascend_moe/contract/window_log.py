"""The stock message 'HCCL_BUFFSIZE is too SMALL ...' recomputed from the numbers that it prints.

A line of tiling names maxBs, h, epWorldSize, localMoeExpertNum, k and the two slot sizes, then the sum in
MB. That sum is rounded down plus one, so it is one too large when the size is exact.
"""

from __future__ import annotations

import re

from ascend_moe.contract.buffsize import MB, Traffic, Window, mesh_a3, mesh_v2_a3
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2
from ascend_moe.contract.signature import CANN_9_1

_PAIR = re.compile(r"\b([A-Za-z_]\w{0,40})\s?=\s?(\d{1,15})\b(?!MB)")
_NEEDED = re.compile(r"NEEDED_HCCL_BUFFSIZE\w{0,3}\b.{0,400}?=\s{0,3}(\d{1,15})\s?MB")
_HAVE = re.compile(r"HCCL_BUFFSIZE(?:_EP|_TP)?\s?=\s?(\d{1,15})\s?MB")


def window_details(line: str) -> list[str]:
    """Sentences about the numbers of one line; empty where it prints none."""
    start = re.search(r"HCCL[_ ]BUFFSIZE(_EP|_TP)? is too (SMALL|small)", line)
    text = line if start is None else line[start.start() :]
    numbers = {name.lower(): int(value) for name, value in _PAIR.findall(text)}
    needed = _NEEDED.search(text)
    have = _last(_HAVE.findall(text))
    printed = int(needed[1]) if needed else None
    exact = _exact_bytes(numbers)
    sentences: list[str] = []
    if exact is not None:
        mb = -(-exact // MB)
        sentences.append(f"recomputed: {exact} bytes, so HCCL_BUFFSIZE={mb} is enough.")
        if printed is not None and printed != mb:
            sentences.append(f"the log says {printed} MB: stock messages add one to an exact size.")
        fits = _largest_max_bs(numbers, have)
        if fits is not None:
            sentences.append(f"largest max_bs that fits {have} MB: {fits}.")
        sentences.append(f"export HCCL_BUFFSIZE={mb}")
    elif printed is not None:
        sentences.append(f"the log asks for {printed} MB.")
        sentences.append(f"export HCCL_BUFFSIZE={printed}")
    if have is not None:
        sentences.insert(0, f"the buffer has {have} MB.")
    return sentences


def _last(found: list[str]) -> int | None:
    return int(found[-1]) if found else None


def _exact_bytes(numbers: dict[str, int]) -> int | None:
    """The sum of an A3 full-mesh line, from the slot sizes that it prints."""
    try:
        arriving = numbers["maxbs"] * numbers["epworldsize"] * numbers["localmoeexpertnum"]
        returning = numbers["maxbs"] * (numbers["k"] + numbers.get("sharedexpertnum", 0))
        return 2 * (
            arriving * numbers["tokenneedsizedispatch"]
            + returning * numbers["tokenneedsizecombine"]
        )
    except KeyError:
        return None


def _largest_max_bs(numbers: dict[str, int], have: int | None) -> int | None:
    """Only for a line whose slot sizes follow from h by one of our formulas."""
    if have is None or "h" not in numbers:
        return None
    traffic = Traffic(
        max_bs=numbers["maxbs"],
        hidden=numbers["h"],
        topk=numbers["k"],
        ep=numbers["epworldsize"],
        moe_experts=numbers["localmoeexpertnum"] * numbers["epworldsize"],
        local_experts=numbers["localmoeexpertnum"],
        shared_experts=numbers.get("sharedexpertnum", 0),
    )
    exact = _exact_bytes(numbers)
    for path, formula in ((FULLMESH, mesh_a3), (FULLMESH_V2, mesh_v2_a3)):
        if formula(traffic).bytes == exact:
            return Window("A3", CANN_9_1, path, "dispatch").largest_max_bs(traffic, have)
    return None
