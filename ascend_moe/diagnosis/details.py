"""What the numbers of a line say, and under which name a refusal is told."""

from __future__ import annotations

import re

from ascend_moe.contract.limits import LIMITS, PRODUCTS
from ascend_moe.contract.rules import RULES_BY_ID
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1
from ascend_moe.diagnosis.facts import Fact
from ascend_moe.diagnosis.finding import quoted

# Names under which some refusals were known before their lines named anything.
NAMES_OF_REFUSALS = {
    "X-24": "batchsize is invalid",
    "D-10": "expertScales is required",
    "X-32": "xActiveMask dim0 differs from x",
}

_OLDER_WORDS = re.compile(r"batchsize is invalid|xpert_?[sS]cales.{0,80}required|xActiveMask dim0")


def name_of_refusal(rule: str, text: str) -> str:
    """The rule and its parameter, or the older name."""
    if rule in NAMES_OF_REFUSALS and _OLDER_WORDS.search(text):
        return NAMES_OF_REFUSALS[rule]
    return f"{rule} {RULES_BY_ID[rule].param}"


def of_refusal(fact: Fact) -> list[str]:
    """Value and limit of a refusal, and what the line leaves out."""
    refused = fact.refusal
    assert refused is not None
    sentences = []
    value, limit = quoted(refused.value), quoted(refused.limit)
    if value and limit:
        sentences.append(f"the line says {value}, allowed: {limit}.")
    elif value or limit:
        sentences.append(f"the line says {value or limit}.")
    main = refused.rules[0]
    if main == "X-12":
        sentences.append("the number is that of one rank: moe_expert_num / ep_world_size.")
    if main in ("X-24", "X-43") and not refused.limit:
        limits = [
            f"{product} {path}: {allowed.batch_max} ({contract})"
            for contract in (CANN_8_2, CANN_9_1)
            for product in PRODUCTS
            for path, allowed in LIMITS[contract, product].paths.items()
        ]
        sentences.append(f"largest BS: {', '.join(limits)}.")
    sizes = re.findall(r"dim\d\s*=\s*(\d{1,18})", fact.line.text)
    if main == "X-32" and len(sizes) >= 2:
        sentences.append(f"the mask has {sizes[0]} entries, x has {sizes[1]} rows.")
    return sentences


def of_allocation(fact: Fact) -> list[str]:
    found = re.search(r"size:?\s*\[?(\d{1,18})", fact.line.text)
    if found is None:
        return []
    size, mb = int(found[1]), 2**20
    sentence = f"the refused allocation is {size} bytes = {size / mb:.1f} MB"
    if size and size % (2 * mb) == 0:
        sentence += (
            f", twice {size // (2 * mb)} MB: HCCL allocates two buffers of HCCL_BUFFSIZE per group"
        )
    return [sentence + "."]
