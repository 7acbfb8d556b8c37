"""The rule behind a refusal of tiling or shape inference, by what its line names.

The wording of the operators' checks changes with every release (EZ9999 with a free text in 2025, EZ0004
and EZ0024 to EZ0027 with a fixed frame in 2026) and with the product and path. What stays are the names of
parameters, so a line is read as words: which parameter it speaks of first, and a few words that tell the
rules of one parameter apart. The tables below are in the order in which they are tried.

Source: ops-transformer, mc2/moe_distribute_{dispatch,combine}_v2/op_host and op_api, of v8.5.0 (2026-01),
v9.0.1, v9.1.0.pre and 3a280bcc3 (2026-07).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ascend_moe.diagnosis.operators import COMBINE, DISPATCH
from ascend_moe.diagnosis.refusal_words import PARAMETERS, PHRASES, ROWS


@dataclass(frozen=True)
class Refusal:
    """What a line refuses.

    Attributes:
        rules: ids, the most likely first; empty where the line names no rule.
        value: what the call has, as the line prints it; empty where it does not.
        limit: what it should be, as the line prints it.
        plain: whether the words alone say that it is dispatch or combine that refuses.
    """

    rules: tuple[str, ...]
    value: str = ""
    limit: str = ""
    plain: bool = False


class _Words(NamedTuple):
    text: str  # lower case, without underscores, classes and operator names
    parameters: tuple[str, ...]  # in the order of the line


_CLASS = re.compile(
    r"^.{0,200}?\bE[EIZ]\d{4}\b(?:\[PID: ?\d+\])?[^A-Za-z(]{0,60}(?:\(E[EIZ]\d{4}\))?:?\s*"
)
_SOURCE = re.compile(r"\[(?:FUNC|FILE|LINE|THREAD):[^\]]{0,200}\]")
_PLOG = re.compile(
    r"^.{0,20}\[(?:ERROR|WARNING)\]\s?\w+\([^)]{0,80}\):\S{10,40}\s?(?:\[[\w.]+:\d+\]\s?)?"
)
_OPERATOR = re.compile(
    r"\b(?:of|for) (?:operator|op) \S+|\b\w*(?:MoeDistribute|aclnnMoe)(?:Dispatch|Combine)\w*\b:?",
    re.IGNORECASE,
)
# The frame of the classes of 2026; without it the first parameter of a free text is the subject.
_FRAME = re.compile(
    r"(?:parameters?|attribute|input parameter|op\[[^\]]*\] attr\[:?) ([\w() /,.'*-]{1,80}?)(?: of \S+)?\]?,? "
    r"(?:has|have|is required|with)\b"
)


def refusal(text: str, op: str = "") -> Refusal | None:
    """What a line of a log refuses; None if it names nothing that a call can have wrong.

    op: "dispatch" or "combine", where that is known; empty: try both.
    """
    words = _words(text)
    for candidate in (op,) if op else (DISPATCH, COMBINE):
        rules = _rules(words, candidate)
        if rules:
            value, limit = _numbers(text)
            return Refusal(rules, value, limit, _speaks_of_ours(words))
    return None


_LINK_OF_A_CHAIN = re.compile(
    r"(?:\w+ )?(?:check\w*|tiling|get\w*|set\w*|fill|attr|params?|input|output|experts'?|from|sendcount|"
    r"zero compute)\b[\w '/().]{0,80}\b(?:fail(?:ed)?|invalid|incorrect)[\s.]*"
)


def chained(text: str) -> bool:
    """Whether a line only passes on that a check before it failed."""
    return _LINK_OF_A_CHAIN.fullmatch(_words(text).text.strip()) is not None


def _rules(words: _Words, op: str) -> tuple[str, ...]:
    for phrase in PHRASES:
        if phrase.matches(words.text, op):
            return phrase.rules
    for parameter in words.parameters:
        for row in ROWS.get(parameter, ()):
            if row.matches(words.text, op):
                return row.rules
    return ()


@lru_cache(maxsize=512)
def _words(text: str) -> _Words:
    text = _PLOG.sub("", _CLASS.sub("", _SOURCE.sub("", text), count=1), count=1)
    text = _OPERATOR.sub("", text)
    plain = text.replace("_", "").lower()
    frame = _FRAME.search(plain)
    found = _named(frame[1]) if frame else _named(plain)
    return _Words(plain, tuple(dict.fromkeys(found)))


_SUFFIX = re.compile(
    r"(?:storage)?(?:shape|desc|ptr|format|dim\d?|dims\d?|optional|datatype|dtype|size)$"
)


def _named(text: str) -> list[str]:
    """The parameters among the words, under their own names."""
    found = []
    for word in re.findall(r"[a-z][a-z0-9]*", text):
        name = PARAMETERS.get(word)
        while name is None and (shorter := _SUFFIX.sub("", word)) not in (word, ""):
            word = shorter
            name = PARAMETERS.get(word)
        if name is not None:
            found.append(name)
    return found


# Parameters that no other operator is likely to have.
_OWN = frozenset(
    (
        "moe_expert_num", "local_expert_num", "ep_world_size", "ep_rank_id", "expert_ids", "shared_expert_num",
        "shared_expert_rank_num", "comm_alg", "global_bs", "expert_token_nums_type", "x_active_mask",
        "expand_x", "assist_info", "ep_counts", "tp_counts", "expand_scales", "elastic_info", "group_ep",
        "zero_expert_num", "copy_expert_num", "const_expert_num", "comm_quant_mode", "expert_shard_type",
        "const_expert", "shared_expert_x", "performance_info", "expert_token_nums", "tagged",
    )
)  # fmt: skip


def _speaks_of_ours(words: _Words) -> bool:
    tagged = re.search(r"\b\w*dims?\d?\((?:bs|h|k)\)", words.text)
    return bool(tagged) or any(name in _OWN for name in words.parameters)


_VALUE = (
    re.compile(
        r"incorrect (?:value|shape|shape dim|dtype|format|shape size) (.{1,60}?)\. (?:It|Reason)"
    ),
    re.compile(r"\b(?:got|is) [^,;=]{1,60}=\s?([\w.+-]{1,40}?)\.?(?=[,\s]|$)"),
    re.compile(r"\bbut [^,;=]{0,60}?\b(?:got|is) ([\w.+-]{1,40}?)\.?(?=[,\s]|$)"),
    re.compile(r"\b(?:actual value is|is) (-?\d+)"),
    re.compile(r"\b\w+ ?= ?(-?\d+), the limit"),
)
_LIMIT = (
    re.compile(r"(?:It should be|Reason:) (.{1,160}?)\.?$"),
    re.compile(r"((?:\[|\()-?\d+, ?(?:min\()?[^)\]]{1,80}[)\]]\]?)"),
    re.compile(r"only supports? ([^,.]{1,80})"),
    re.compile(r"no more than (\d+)"),
    re.compile(r"the limit of .{1,40} is (\d+)"),
    re.compile(r"(?:should|must) be ([^,.]{1,80})"),
)


def _numbers(text: str) -> tuple[str, str]:
    text = _SOURCE.sub("", text).strip()
    value = next((found[1] for pattern in _VALUE if (found := pattern.search(text))), "")
    limit = next((found[1] for pattern in _LIMIT if (found := pattern.search(text))), "")
    return value.strip(), limit.strip()
