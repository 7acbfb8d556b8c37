"""The words by which refusals.py tells rules apart.

PARAMETERS: a word of a line, in lower case without underscores and endings such as "shape" or "desc", to
the parameter that it means. PHRASES: what decides by itself. ROWS: by parameter, the words beside it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ascend_moe.diagnosis.operators import COMBINE, DISPATCH


class Row(NamedTuple):
    """words: a regular expression, compiled when it is first needed. rules: the likeliest first."""

    words: str
    rules: tuple[str, ...]
    op: str = ""

    def matches(self, text: str, op: str) -> bool:
        """Whether the row speaks of this line of this operator."""
        return self.op in ("", op) and _compiled(self.words).search(text) is not None


@cache
def _compiled(words: str) -> re.Pattern[str]:
    return re.compile(words)


def _row(words: str, rules: str, op: str = "") -> Row:
    return Row(words, tuple(rules.split()), op)


_SPELLINGS: dict[str, str] = {
    "group_ep": "groupep",
    "group_tp": "grouptp",
    "ep_world_size": "epworldsize epworld",
    "ep_rank_id": "eprankid eprank",
    "moe_expert_num": "moeexpertnum moeexpertnums totalexpertnum",
    "local_expert_num": "localmoeexpertnum localexpertnum",
    "moe_ranks": "moeranknum",
    "tp_world_size": "tpworldsize tpworld",
    "tp_rank_id": "tprankid tprank",
    "expert_shard_type": "expertshardtype expertsharedtype expertshard",
    "shared_expert_num": "sharedexpertnum",
    "shared_expert_rank_num": "sharedexpertranknum",
    "quant_mode": "quantmode",
    "y_dtype": "ydtype y",
    "global_bs": "globalbs globalbsreal",
    "expert_token_nums_type": "experttokennumstype",
    "expert_token_nums": "experttokennums",
    "comm_alg": "commalg",
    "comm_quant_mode": "commquantmode",
    "zero_expert_num": "zeroexpertnum",
    "copy_expert_num": "copyexpertnum",
    "const_expert_num": "constexpertnum",
    "special_experts": "zerocomputeexpert zerocomputeexperts zerocomputeexpertnum",
    "x": "x",
    "x_out": "xout",
    "expert_ids": "expertids expertid expertidsdim expertidstensor",
    "scales": "scales scale scalestensor isscale",
    "expert_scales": "expertscales expertscale",
    "expand_x": "expandx",
    "dynamic_scales": "dynamicscales",
    "assist_info": "assistinfo assistinfoforcombine expandidx",
    "ep_counts": "eprecvcount eprecvcounts epsendcount epsendcounts localepsendcount",
    "tp_counts": "tprecvcount tprecvcounts tpsendcount tpsendcounts",
    "expand_scales": "expandscales expandscale",
    "x_active_mask": "xactivemask activemask expertmask isactivemask",
    "elastic_info": "elasticinfo",
    "performance_info": "performanceinfo isperformance",
    "ori_x": "orix",
    "const_expert": "constexpertalpha1 constexpertalpha2 constexpertalpha constexpertv constexpertinputs",
    "shared_expert_x": "sharedexpertx",
    "reserved": "activationscale weightscale grouplist",
    "batch": "bs batchsize batch maxbs",
    "hidden": "h hiddensize hidden",
    "topk": "k topk",
    "cores": "aivnum",
    "buffer": "hcclbuffsize cclbuffsize cclbuffersize hcclbuffersizeep hcclbuffersizetp hcclbuffersize winsize",
}
PARAMETERS: dict[str, str] = {
    word: name for name, words in _SPELLINGS.items() for word in words.split()
}

_FORMAT = r"format\b|fractalnz"
_MISSING = r"\bis (?:required|null|nullptr)\b|\bid null\b|required, but it is empty|must exist|must be exist|missing"
_TYPE = r"data ?type|\bdtype"
_NOT_HERE = r"not support|cannot support|only support input none|should be none|none is supported|must be nullptr"

PHRASES: tuple[Row, ...] = (
    _row(
        r"is too small|win ?size failed|hcclbuffersize\w* failed|cclbuffersize failed|cclbuffersize is 0",
        "X-39",
    ),
    _row(r"unlayered", "X-12"),
    _row(r"incorrect format|fractalnz", "X-38"),
    _row(r"static quant", "D-12", DISPATCH),
    _row(r"variablebs", "X-41"),
    _row(r"different bs.{0,60}fullmeshv2", "X-43"),
    _row(r"different bs", "X-45 X-23"),
    _row(r"isactivemask", "X-45 X-23"),
    _row(r"exceeds? the size limit|usedub|ubsize", "X-43"),
    _row(r"fullmeshv2, (?:bs|topk|tpworldsize)", "X-43"),
    _row(r"aiv ?num", "X-42"),
    _row(r"(?:int32max|maxint32)", "X-27"),
    _row(r"sharedexpertx.{0,160}sharedexpertranknum", "C-09", COMBINE),
    _row(
        r"both be zero|both must be zero|only support 0 when sharedexpert|should be 0 when sharedexpert",
        "X-19",
    ),
    _row(r"shared expert setting", "X-19"),
    _row(r"sharedexpertranknum.{0,60}divisible by sharedexpertnum", "X-20"),
    _row(r"epworldsize.{0,120}divisible by sharedexpertranknum", "X-20 X-18"),
    _row(r"moeexpertnum.{0,120}(?:divisible by|%) ?\(?epworldsize -", "X-10"),
    _row(r"moeranknum|worldsize and sharedexpertranknum", "X-18"),
    _row(r"multiple moe ?experts|multi-moeexpert|moeexpert .{0,60}when tpworldsize", "X-15"),
    _row(r"all dims must|each dim\b|input shape of xshape", "X-24 X-25 X-26"),
)

_SHAPE_OF_X = (
    _row(r"\(bs\)", "X-24"),
    _row(r"\(h\)|\bh\) should|aligned", "X-25"),
)

ROWS: dict[str, tuple[Row, ...]] = {
    "group_ep": (_row("", "X-01"),),
    "group_tp": (_row("", "X-03"),),
    "ep_world_size": (
        _row(r"\b16[- ]aligned|hierarchy|layered", "X-06"),
        _row(
            r"list|one of|multiple of 8|divisible by (?:8|2)|8-aligned|a2check|\[1, ?(?:64|256|384)",
            "X-05",
        ),
        _row(r"\[2, ?\d|\(0, ?\d|\[1, ?\d|range|\[minep", "X-04 X-05"),
        _row("", "X-05 X-04"),
    ),
    "ep_rank_id": (_row("", "X-07"),),
    "moe_expert_num": (
        _row(r"in valid range and divisible", "X-09 X-10"),
        _row(r"range|\(0, ?\d|support", "X-09"),
        _row(r"divisible", "X-10"),
        _row("", "X-09 X-10"),
    ),
    "local_expert_num": (_row("", "X-11"),),
    "tp_world_size": (_row("", "X-13"),),
    "tp_rank_id": (_row("", "X-14"),),
    "expert_shard_type": (_row("", "X-16"),),
    "shared_expert_num": (
        _row(r"hierarchy", "X-18 X-17"),
        _row("", "X-17"),
    ),
    "shared_expert_rank_num": (_row("", "X-18"),),
    "special_experts": (_row(_FORMAT, "X-38"), _row("", "X-28")),
    "zero_expert_num": (_row(r"less than 0|>= ?0|negative", "X-27"), _row("", "X-28 X-27")),
    "copy_expert_num": (_row(r"less than 0|>= ?0|negative", "X-27"), _row("", "X-28 X-27")),
    "const_expert_num": (_row(r"less than 0|>= ?0|negative", "X-27"), _row("", "X-28 X-27")),
    "comm_alg": (_row("", "X-29"),),
    "quant_mode": (
        _row(r"scales", "D-04 D-12", DISPATCH),
        _row(r"ydtype|data ?type", "D-22 D-12", DISPATCH),
        _row("", "D-12", DISPATCH),
    ),
    "y_dtype": (_row(r"ydtype", "D-22", DISPATCH),),
    "comm_quant_mode": (
        _row(r"tpworldsize", "C-13", COMBINE),
        _row(r"layered", "C-14", COMBINE),
        _row(r"is invalid|valid commquant", "C-12 C-14", COMBINE),
        _row("", "C-12", COMBINE),
    ),
    "global_bs": (_row("", "X-22"),),
    "expert_token_nums_type": (_row("", "D-13", DISPATCH),),
    "expert_token_nums": (_row(_FORMAT, "X-38"), _row("", "D-18", DISPATCH)),
    "x": (
        _row(_FORMAT, "X-38"),
        _row(
            r"x\(output\)|x'?s dim[01] (?:not|should)|xdim[01] not|shape dim of x must be equal",
            "C-19",
            COMBINE,
        ),
        _row(_TYPE, "C-19", COMBINE),
        *_SHAPE_OF_X,
        _row(r"dim0.{0,40}expertid|x/expertids|x and expertids", "D-03", DISPATCH),
        _row(r"x/scales|dim1 of scales", "D-06", DISPATCH),
        _row(_TYPE, "D-02", DISPATCH),
        _row(r"2-?d|dims|2-dimension|\bdim\b|shape|null|required|desc", "D-01", DISPATCH),
        _row(r"\bdim|null|required|shape", "C-19", COMBINE),
    ),
    "expert_ids": (
        _row(_FORMAT, "X-38"),
        _row(r"\(k\)", "X-26"),
        _row(r"\(bs\)", "X-24"),
        _row(r"dims?0\W.{0,40}(?:not equal|should)", "D-03", DISPATCH),
        _row("", "X-35"),
    ),
    "scales": (
        _row(_FORMAT, "X-38"),
        _row(r"null|provided|unquant|not match", "D-04", DISPATCH),
        _row(r"dim[01]|should be equal|expected scales", "D-06", DISPATCH),
        _row(f"{_TYPE}|dims|dim|shape", "D-05", DISPATCH),
        _row("", "D-04", DISPATCH),
    ),
    "expert_scales": (
        _row(_FORMAT, "X-38"),
        _row(_MISSING, "D-10", DISPATCH),
        _row("", "D-09", DISPATCH),
        _row("", "C-05", COMBINE),
    ),
    "expand_x": (
        _row(_FORMAT, "X-38"),
        _row(r"\(h\)|only supports 7168|aligned", "X-25"),
        _row("", "D-15", DISPATCH),
        _row(r"dim0.{0,60}\ba\b|\(dim0\)", "C-02", COMBINE),
        _row("", "C-01", COMBINE),
    ),
    "dynamic_scales": (_row(_FORMAT, "X-38"), _row("", "D-16", DISPATCH)),
    "assist_info": (_row(_FORMAT, "X-38"), _row("", "D-17", DISPATCH), _row("", "C-03", COMBINE)),
    "ep_counts": (_row(_FORMAT, "X-38"), _row("", "D-19", DISPATCH), _row("", "C-04", COMBINE)),
    "tp_counts": (_row(_FORMAT, "X-38"), _row("", "D-20", DISPATCH), _row("", "C-07", COMBINE)),
    "expand_scales": (
        _row(_FORMAT, "X-38"),
        _row("", "D-21", DISPATCH),
        _row("", "C-08", COMBINE),
    ),
    "x_active_mask": (
        _row(_FORMAT, "X-38"),
        _row(rf"{_NOT_HERE}|hierarchy|only support 1", "X-33"),
        _row("", "X-32"),
    ),
    "elastic_info": (_row(_FORMAT, "X-38"), _row("", "X-30")),
    "performance_info": (_row(_FORMAT, "X-38"), _row("", "X-31")),
    "ori_x": (_row(_FORMAT, "X-38"), _row("alpha", "C-16", COMBINE), _row("", "C-15", COMBINE)),
    "const_expert": (_row(_FORMAT, "X-38"), _row("", "C-16", COMBINE)),
    "shared_expert_x": (
        _row(_FORMAT, "X-38"),
        _row(_TYPE, "C-11", COMBINE),
        _row(r"none|present", "C-09", COMBINE),
        _row("", "C-10", COMBINE),
    ),
    "reserved": (_row("", "C-17", COMBINE),),
    "batch": (_row(r"invalid|range|should|\[1, ?\d|incorrect|required", "X-24"),),
    "hidden": (_row(r"invalid|range|should|multiple|positive|incorrect", "X-25"),),
    "topk": (_row(r"invalid|range|should|larger|incorrect", "X-26"),),
    "buffer": (_row(r"null|>= ?0|failed", "X-39"),),
    "cores": (_row("", "X-42"),),
}
