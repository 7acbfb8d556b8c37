"""What a failed run prints, and what it means: the data behind `ascend-moe explain` and docs/errors.md.

The stock operators report most broken rules as a bare number. A symptom is a line of a log that says
more; its record names the rules behind it and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ascend_moe.contract.buffsize import MB
from ascend_moe.contract.limits import LIMITS, PRODUCTS
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1
from ascend_moe.diagnosis.window_log import window_details

Details: TypeAlias = Callable[[str], list[str]]


@dataclass(frozen=True)
class Symptom:
    """One recognisable line.

    Attributes:
        name: what it is called in docs/errors.md; the number where there is one.
        pattern: regular expression, searched in one line.
        meaning: what happened.
        advice: what to do.
        rules: ids of the rules that can be behind it.
        details: sentences made from the numbers in the line.
    """

    name: str
    pattern: str
    meaning: str
    advice: str
    rules: tuple[str, ...] = ()
    details: Details | None = None

    def matches(self, line: str) -> bool:
        return _compiled(self.pattern).search(line) is not None


_PATTERNS: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    found = _PATTERNS.get(pattern)
    if found is None:
        found = _PATTERNS[pattern] = re.compile(pattern)
    return found


def _batch_details(line: str) -> list[str]:
    """The limits that the stock line leaves out."""
    limits = [
        f"{product} {path}: {allowed.batch_max} ({contract})"
        for contract in (CANN_8_2, CANN_9_1)
        for product in PRODUCTS
        for path, allowed in LIMITS[contract, product].paths.items()
    ]
    return [f"largest BS: {', '.join(limits)}."]


def _memory_details(line: str) -> list[str]:
    found = re.search(r"size:?\s*\[?(\d{1,18})", line)
    if found is None:
        return []
    size = int(found[1])
    sentence = f"the refused allocation is {size} bytes = {size / MB:.1f} MB"
    if size % (2 * MB) == 0:
        sentence += (
            f", twice {size // (2 * MB)} MB: HCCL allocates two buffers of HCCL_BUFFSIZE per group"
        )
    return [sentence + "."]


def _hccl_ret_details(line: str) -> list[str]:
    found = re.search(r"\bret\s*=\s*(-?\d{1,9})", line)
    return [] if found is None else [f"HCCL returned {found[1]}."]


def _mask_details(line: str) -> list[str]:
    numbers = re.findall(r"dim\d\s*=\s*(\d{1,18})", line)
    if len(numbers) < 2:
        return []
    return [f"the mask has {numbers[0]} entries, x has {numbers[1]} rows."]


SAME_EVERYWHERE = (
    "Compare on all ranks: ep_world_size, global_bs, HCCL_BUFFSIZE, driver version "
    "(`ascend-moe doctor --json` on each node, then `ascend-moe doctor --compare`)."
)

SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        name="HCCL_BUFFSIZE is too SMALL",
        pattern=r"HCCL[_ ]BUFFSIZE(_EP|_TP)? is too (SMALL|small)",
        meaning="The windows of dispatch and combine do not fit into the HCCL buffer of the group.",
        advice=(
            "Set HCCL_BUFFSIZE on every rank before the process group is created, or lower max_bs. "
            "HCCL_BUFFSIZE_EP, which newer messages print, is no variable: the one to set is "
            "HCCL_BUFFSIZE."
        ),
        rules=("X-39", "E-01"),
        details=window_details,
    ),
    Symptom(
        name="batchsize is invalid",
        pattern=r"(?i)batch\s?size is invalid",
        meaning="BS is outside the limit of the product and path; the stock line names neither.",
        advice="Lower the tokens per rank and call (in vLLM the capture sizes or max-num-seqs).",
        rules=("X-24", "X-43"),
        details=_batch_details,
    ),
    Symptom(
        name="expertScales is required",
        pattern=r"(?i)expert_?scales\b.{0,80}(is required|is empty|is null)",
        meaning="The call takes the hierarchy path, which needs expert_scales in dispatch.",
        advice=(
            "Pass expert_scales (float32, BS x K), or leave hierarchy: comm_alg, or on A2 "
            "HCCL_INTRA_PCIE_ENABLE and HCCL_INTRA_ROCE_ENABLE select it."
        ),
        rules=("D-10", "E-02"),
    ),
    Symptom(
        name="xActiveMask dim0 differs from x",
        pattern=r"(?i)xActiveMask dim\d\s*=\s*\d+ is not equal",
        meaning="x_active_mask does not have one entry per row of x.",
        advice="Build the mask for the padded batch: its length is BS.",
        rules=("X-32",),
        details=_mask_details,
    ),
    Symptom(
        name="unsupported SoC version",
        pattern=r"(?i)not support(ed)? soc version|soc version .{0,40}not support",
        meaning="The operator package was built for another chip.",
        advice="Install the CANN kernels of this chip; A2 is Ascend910B, A3 is Ascend910_93.",
    ),
    Symptom(
        name="MTE address out of range",
        pattern=r"MTE instruction is out of range|MTE.{0,40}out of range",
        meaning=(
            "A kernel addressed memory beyond a buffer. For these operators: a window that is too "
            "small (A2 does not check it), or expert ids outside the experts."
        ),
        advice=(
            "Compute the size with `ascend-moe buffsize`; run once with ASCEND_MOE_CHECK=full to "
            "check the ids."
        ),
        rules=("X-39", "X-36", "X-37"),
    ),
    Symptom(
        name="HcclAllocComResourceByTiling",
        pattern=r"HcclAllocComResourceByTiling.{0,160}ret\s*=|fails to invoke the HcclAllocCom",
        meaning="HCCL could not get the resources of the group: device memory, queue pairs or links.",
        advice=(
            "Look for EI0007 or 207001 near it. Memory: lower HCCL_BUFFSIZE or the memory share of "
            "the engine. Queue pairs: fewer groups per device. Ranks must start together."
        ),
        rules=("E-06", "E-12"),
        details=_hccl_ret_details,
    ),
    Symptom(
        name="EI0007",
        pattern=r"\bEI0007\b|Failed to allocate resource[\[ ](qp|notify)",
        meaning="HCCL ran out of a resource that the line names (queue pairs, notifies, memory).",
        advice="Fewer communicators per device; free memory; check the links between the ranks.",
        rules=("E-06",),
    ),
    Symptom(
        name="207001",
        pattern=r"\b207001\b|Failed to allocate resource\[DeviceMemory\]",
        meaning="Out of device memory. Every group takes twice HCCL_BUFFSIZE.",
        advice=(
            "Lower HCCL_BUFFSIZE to what `ascend-moe buffsize` says, create fewer groups, or give the "
            "engine a smaller share of the memory."
        ),
        rules=("X-39",),
        details=_memory_details,
    ),
    Symptom(
        name="507014",
        pattern=r"\b507014\b|aicore execution times out|\[aicore timeout\]",
        meaning="A kernel waited too long: usually a peer never wrote what it was waiting for.",
        advice=(
            f"{SAME_EVERYWHERE} Driver 24.1 hangs on A2; HCCL_OP_EXPANSION_MODE=AIV hangs; a single "
            "A2 server (EP8) needs CANN 9.1."
        ),
        rules=("X-08", "X-40", "X-45", "E-04", "E-12", "E-13"),
    ),
    Symptom(
        name="507057",
        pattern=r"\b507057\b",
        meaning="The device or a peer failed while the operators ran: often a receive buffer that is "
        "too small for the largest batch.",
        advice=f"Size the buffer for the largest max_bs, prefill included. {SAME_EVERYWHERE}",
        rules=("X-39", "X-40"),
    ),
    Symptom(
        name="507015",
        pattern=r"\b507015\b",
        meaning="A kernel stopped with an exception; the reason stands in the lines around it.",
        advice="Look for 'MTE instruction is out of range' near it.",
        rules=("X-39", "X-36"),
    ),
    Symptom(
        name="107020",
        pattern=r"\b107020\b",
        meaning="A task was refused by the runtime; seen with HCCL_OP_EXPANSION_MODE=AIV.",
        advice="Unset HCCL_OP_EXPANSION_MODE on all ranks.",
        rules=("E-13",),
    ),
    Symptom(
        name="HCCL_OP_EXPANSION_MODE=AIV",
        pattern=r"HCCL_OP_EXPANSION_MODE\W{1,4}AIV",
        meaning="This mode and these operators hang together.",
        advice="Unset HCCL_OP_EXPANSION_MODE on all ranks.",
        rules=("E-13",),
    ),
    Symptom(
        name="driver 24.1",
        pattern=r"(?i)driver\D{0,40}\b24\.1\.",
        meaning="Driver 24.1 hangs in these operators on A2.",
        advice="Install driver 25.0.RC1.1 or later, the same on all nodes.",
        rules=("E-04",),
    ),
    Symptom(
        name="561000",
        pattern=r"\b561000\b",
        meaning="The aclnn call failed while it prepared its resources, not because of an argument.",
        advice="Look for HcclAllocComResourceByTiling, EI0007 or 207001 in the same log.",
        rules=("X-39", "E-06"),
    ),
    Symptom(
        name="561002",
        pattern=r"\b561002\b",
        meaning="Tiling refused the call: it breaks a rule, and the number does not say which.",
        advice=(
            "Make the call through ascend_moe (ascend_moe.install()), which names the rule; or set "
            "ASCEND_MOE_DUMP=DIR and run `ascend-moe check` on the file. The line with the reason "
            "starts with EZ9999 or EZ0004, or is in the plog (~/ascend/log/debug/plog)."
        ),
    ),
    Symptom(
        name="161002",
        pattern=r"\b161002\b",
        meaning="aclnn refused a parameter: a dtype or shape that the operator definition does not list.",
        advice="Check dtypes first: ids and counts int32, scales float32, mask bool.",
        rules=("X-32", "X-35", "D-02", "D-05", "D-09", "C-01", "C-05"),
    ),
    Symptom(
        name="161001",
        pattern=r"\b161001\b",
        meaning="aclnn got no tensor where it needs one, or a group name that is too long.",
        advice="Pass all required tensors; a group name has 1 to 127 bytes.",
        rules=("X-01", "D-10", "C-05"),
    ),
)


def recognise(line: str) -> Iterator[Symptom]:
    """The symptoms that a line shows."""
    return (symptom for symptom in SYMPTOMS if symptom.matches(line))
