"""The message 'HCCL_BUFFSIZE is too SMALL ...': what it asks for, and whose it is.

Many operators print this phrase with sums of their own, so the number in the line is the need. A line of
A3 full mesh names maxBs, h, epWorldSize, localMoeExpertNum, k and the two slot sizes beside the sum in MB,
which is rounded down plus one and so one too large when the size is exact. Where our formula gives just that
number, or the exact one, the line is recomputed from its numbers; everywhere else it is repeated.
"""

from __future__ import annotations

import re

from ascend_moe.contract.buffsize import MB, Traffic, Window, mesh_a3, mesh_v2_a3
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2
from ascend_moe.contract.signature import CANN_9_1
from ascend_moe.diagnosis.operators import Operator, first_generation

_START = re.compile(
    r"HC?CL[_ ]BUFFSIZE(?:_EP|_TP)? is too|hccl buffer.{0,8} is too|cclBufferSize", re.IGNORECASE
)
_PAIR = re.compile(r"\b([A-Za-z_]\w{0,40})\s?=\s?(\d{1,15})\b(?!\s?MB)")
# A number of MB and what it is said to be: the buffer that there is, or else the need.
_EQUALS = re.compile(r"(\w{0,60})\s{0,3}[=:]\s{0,3}(\d{1,15})\s?MB")
_BUFFER = re.compile(r"(?<!NEEDED_H)CCL_BUFFSIZE(?:_EP|_TP)?$")
_HAVE = re.compile(
    r"(?:available|the (?:group|buffer) has) (\d{1,15})\s?MB|^cclBufferSize\(\d+ Bytes, (\d{1,15}) MB"
)
_NEED = re.compile(r"\bneed (\d{1,15})\s?MB|set hccl buffsize to (\d{1,15})\s?MB")
_MORE_THAN = re.compile(r"should (?:be )?larger than (\d{1,15})\s?MB")
_SIZES = ("maxbs", "h", "epworldsize", "localmoeexpertnum", "k")
_MESHES = ((FULLMESH, mesh_a3), (FULLMESH_V2, mesh_v2_a3))


def window_details(line: str, operator: Operator | None = None) -> list[str]:
    """Sentences about the numbers of one line; empty where it prints none.

    operator: whose line it is, where that is known; nothing is computed for others than ours.
    """
    start = _START.search(line)
    text = line if start is None else line[start.start() :]
    printed, available = _printed(text)
    sentences: list[str] = []
    if available is not None:
        sentences.append(f"the buffer has {available} MB.")
    numbers = {name.lower(): int(value) for name, value in _PAIR.findall(text)}
    path, exact = None, None
    if operator is None or (operator.ours and not first_generation(operator)):
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
        more = _MORE_THAN.search(text)
        sentences.append(
            f"the log asks for more than {more[1]} MB, a number that was rounded down."
            if more
            else f"the log asks for {printed} MB."
        )
        sentences.append(f"export HCCL_BUFFSIZE={printed}")
    return sentences


def _printed(text: str) -> tuple[int | None, int | None]:
    """(need, what there is) in MB as the line prints them."""
    need, have = None, None
    for name, number in _EQUALS.findall(text):
        if not _BUFFER.search(name):
            need = int(number)
        elif have is None:
            have = int(number)
    if (found := _HAVE.search(text)) and have is None:
        have = int(found[1] or found[2])
    if (found := _NEED.search(text)) and need is None:
        need = int(found[1] or found[2])
    if (found := _MORE_THAN.search(text)) and need is None:
        need = int(found[1]) + 1
    return need, have


def _recomputed(numbers: dict[str, int], printed: int | None) -> tuple[str | None, int | None]:
    """(path, exact bytes) of an A3 full-mesh line, where they agree with what it prints."""
    exact = _sum_of_slots(numbers)
    if printed is not None and exact is not None and not _agrees(exact, printed):
        return None, None
    if not all(name in numbers for name in _SIZES):
        return None, exact
    for path, formula in _MESHES:
        size = formula(_traffic(numbers)).bytes
        if size == exact or (exact is None and printed is not None and _agrees(size, printed)):
            return path, size
    return None, exact


def _agrees(size: int, printed: int) -> bool:
    """Whether a line that needs `size` bytes may print this number of MB."""
    return printed in (size // MB + 1, -(-size // MB))


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
