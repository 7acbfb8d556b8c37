"""Which operator a line names, and whether it is one of the two that this project is about.

Names come in many shapes: the aclnn function (aclnnMoeDistributeDispatchV4), the operator type
(MoeDistributeDispatchV2), its kernel with a hash (MoeDistributeDispatchV2_0123abcd_1060), a node of a graph
(MoeDistributeDispatchV2_0), and the source file of its checks (moe_distribute_dispatch_v2_tiling.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

DISPATCH, COMBINE = "dispatch", "combine"


class Operator(NamedTuple):
    """name: as users know it. op: "dispatch" or "combine" of ours, else empty. what: one of a family."""

    name: str
    op: str = ""
    what: str = ""

    @property
    def ours(self) -> bool:
        return bool(self.op)


# Operators that do similar work with sums and rules of their own, and what each is.
SIBLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (r"^aiv_?[a-z]", "a collective of HCCL on vector cores"),
        (
            r"^(cam)?moe(dispatch|combine)normal|^cammoe(dispatch|combine)normal",
            "DeepEP normal mode",
        ),
        (r"lowlatency(dispatch|combine)", "DeepEP low latency mode"),
        (r"^(cam)?notifydispatch|^notify", "DeepEP's exchange of counts"),
        (r"^(cam)?moedistribute", "a relative of dispatch and combine with sums of its own"),
        (r"^dispatchffncombine", "dispatch, experts and combine in one kernel"),
        (r"^megamoe", "dispatch, experts and combine in one kernel"),
        (r"^fuseddeepmoe", "dispatch, experts and combine in one kernel"),
        (r"^moeep(dispatch|combine)", "dispatch and combine of ElasticBuffer"),
    )
)
_OURS = re.compile(r"^MoeDistribute(Dispatch|Combine)(?:V[1-5]|A2|A3)?$", re.IGNORECASE)
_FIRST = re.compile(r"^MoeDistribute(Dispatch|Combine)(?:V1)?$", re.IGNORECASE)


@lru_cache(maxsize=4096)
def operator(name: str) -> Operator:
    """The operator behind a name of any shape."""
    name = re.sub(r"[^\x21-\x7e]", "?", name)
    name = name.removeprefix("aclnn").removesuffix("GetWorkspaceSize")
    # A kernel's name ends in a hash and a tiling key, a node's in a number.
    name = re.sub(r"(_(?=[a-f]{0,30}\d)[0-9a-f]{6,}(_.*)?|(_\d+)+)$", "", name)
    name = re.sub(r"^(\w+?)(?:Tiling|InferShape)?$", r"\1", name)
    ours = _OURS.match(name)
    if ours:
        return Operator(name, ours[1].lower())
    for pattern, what in SIBLINGS:
        if pattern.search(name):
            return Operator(name, "", what)
    return Operator(name)


def first_generation(found: Operator) -> bool:
    """Whether it is aclnnMoeDistributeDispatch or Combine without a number: rules as ours, other sums."""
    return _FIRST.match(found.name) is not None


_FILE = re.compile(r"\[FILE:(?:[\w./-]{0,200}/)?(\w{1,100})\.(?:cpp|cc|h)\b")
_FILE_NAME = re.compile(
    r"\b([a-z][a-z0-9_]{3,80}_(?:tiling|infershape)[a-z0-9_]{0,30})\.(?:cpp|cc|h)\b"
)
_FUNCTION = re.compile(r"\[FUNC:(\w{1,120})")
_FUNCTION_OF_OURS = re.compile(r"MoeDistribute(?:Dispatch|Combine)(?=V\d|A[235]|Tiling|Check|$)")
_IN_FILE = re.compile(
    r"_(?:tiling|infershape)(?:_(?:helper|base|arch\d+|a\d(?:a\d)?|v\d|common|func|impl))*$"
    r"|^aclnn_|_(?:arch\d+|def|proto)$"
)


def of_source(text: str) -> Operator | None:
    """The operator whose checks printed a line, from the source file or function that it ends with."""
    found = _FILE.search(text) or _FILE_NAME.search(text)
    if found and re.search(r"tiling|infershape|^aclnn_", found[1]):
        base = _IN_FILE.sub("", found[1])
        while base != (shorter := _IN_FILE.sub("", base)):
            base = shorter
        parts = base.split("_")
        if len(parts) > 1 and parts[0] not in ("mc2", "op", "common", "nnopbase"):
            if base.startswith("moe_distribute_") and parts[-1] in ("a2", "a3", "a5", "arch22"):
                parts.pop()
            return operator("".join(part[:1].upper() + part[1:] for part in parts))
    function = _FUNCTION.search(text)
    if function and (named := _FUNCTION_OF_OURS.search(function[1])):
        return operator(named[0])
    return None


_NAME = r"([A-Za-z]\w{2,120})"
# How failures name their operator; the group is the name.
NAMED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("kernel", re.compile(rf"fault kernel_name\s?[=:]\s?{_NAME}")),
    ("call", re.compile(r"call (?:to )?(aclnn\w{2,120}) failed|(aclnn\w{2,120})\s+fail(?:ed|s)\b")),
    ("node", re.compile(rf"OpName:\s?\[{_NAME}\]")),
    ("tiling", re.compile(rf"\b{_NAME} do tiling failed")),
    ("binary", re.compile(rf"Cannot find bin(?:ary)? (?:for|of) op(?:erator)? {_NAME}")),
    ("operator", re.compile(rf"\b(?:of|for) (?:operator|op) \[?{_NAME}")),
    ("operator", re.compile(rf"\bOP\[{_NAME}\]")),
    ("operator", re.compile(rf"\bop(?:_?type|_?name)\s?[=:]\s?\[?{_NAME}")),
)
_WORD = re.compile(
    r"\b((?:aclnn)?(?:Cam)?Moe(?:Distribute|LowLatency|Ep|Dispatch|Combine)\w{0,60}|(?:aclnn)?(?:Cam)?NotifyDispatch\w{0,30}"
    r"|(?:aclnn)?DispatchFFNCombine\w{0,30}|(?:aclnn)?MegaMoe\w{0,30}|(?:aclnn)?FusedDeepMoe\w{0,30})\b"
)


# A name of two humps or more, before the words of a check or of a buffer line.
_HUMPS = (
    r"((?!Check|Get|Set|Tiling|Infer|Inner|Trace|Error|Nnopbase)"
    r"[A-Z][a-z]{1,30}[A-Za-z0-9]{0,40}[A-Z][A-Za-z0-9]{0,40}(?:_\d+)?)"
)
_BEFORE = re.compile(
    rf"(?<![\w.]){_HUMPS}(?<!Error)(?<!Exception)(?<!Warning)[\])]?:? (?:TP )?HC?CL[_ ]BUFFSIZE\w{{0,3}} is too"
    rf"|\bE[EIZ]\d{{4}}\)?:?\s+{_HUMPS}:? [a-z]"
)


def names(text: str) -> Iterator[tuple[str, Operator]]:
    """(how it is named, operator) of all failures that a line names, the strongest first."""
    for how, pattern in NAMED:
        found = pattern.search(text)
        if found is not None:
            name = next(group for group in found.groups() if group)
            if name not in ("the", "null", "none", "None"):
                yield how, operator(name)
    source = of_source(text)
    if source is not None:
        yield "source", source
    word = _BEFORE.search(text) or _WORD.search(text)
    if word is not None:
        yield "word", operator(next(group for group in word.groups() if group))
