"""Refusals of tiling and shape inference lead to their rules, whatever words a release uses."""

import csv
from pathlib import Path

import pytest

from ascend_moe.contract.rules import RULES_BY_ID
from ascend_moe.diagnosis.facts import REFUSAL, facts
from ascend_moe.diagnosis.lines import Line
from ascend_moe.diagnosis.refusals import chained, refusal

TABLE = Path(__file__).parents[1] / "data" / "diagnosis" / "refusals.tsv"
OPERATORS = {"dispatch": "MoeDistributeDispatchV2", "combine": "MoeDistributeCombineV2"}
# The frames of the classes, as opbase's include/op_common/log/log.h fills them.
FRAMES = {
    "EZ0002": "Attribute {param} of {op} has incorrect value {value}. It should be {limit}.",
    "EZ0004": "Parameter {param} of {op} is required, but it is empty.",
    "EZ0009": "Parameter {param} of operator {op} has incorrect shape {value}. Reason: {limit}.",
    "EZ0010": "Parameters {param} of operator {op} have incorrect shapes {value}. Reason: {limit}.",
    "EZ0011": "Parameter {param} of operator {op} has incorrect shape dim {value}. It should be {limit}.",
    "EZ0012": "Parameter {param} of operator {op} has incorrect shape dim {value}. Reason: {limit}.",
    "EZ0017": "Parameter {param} of operator {op} has incorrect format {value}. It should be {limit}.",
    "EZ0019": "Parameter {param} of operator {op} has incorrect dtype {value}. It should be {limit}.",
    "EZ0020": "Parameter {param} of operator {op} has incorrect dtype {value}. Reason: {limit}.",
    "EZ0024": "Parameter {param} of operator {op} has incorrect value {value}. It should be {limit}.",
    "EZ0026": "Parameter {param} of operator {op} has incorrect value {value}. Reason: {limit}.",
    "EZ0027": "Parameters {param} of operator {op} have incorrect values {value}. Reason: {limit}.",
}


def lines():
    with TABLE.open() as stream:
        rows = (row for row in csv.reader(stream, delimiter="\t") if not row[0].startswith("#"))
        for op, style, param, words, rule in rows:
            name = OPERATORS[op]
            if style in FRAMES:
                value, _, limit = words.partition("|")
                frame = FRAMES[style].format(param=param, op=name, value=value, limit=limit)
                yield op, f"{style}: {frame}", rule
            else:
                branch = "A2" if style.endswith("-A2") else "A3"
                where = f"[FUNC:MoeDistribute{op.title()}{branch}Check][FILE:moe_distribute_{op}_v2_tiling.cpp]"
                yield op, f"EZ9999[PID: 7] (EZ9999):  {param} {words}.{where}[LINE:1]", rule


ROWS = list(lines())


def test_every_line_leads_to_its_rule():
    """At least 95 of 100 are asked for; a line that does not is to be seen at once."""
    assert len(ROWS) > 500
    assert {rule for _, _, rule in ROWS} <= set(RULES_BY_ID)
    wrong = []
    for op, text, rule in ROWS:
        found = refusal(text, op)
        if found is None or found.rules[0] != rule:
            wrong.append((op, text, rule, found and found.rules))
    assert not wrong


def test_the_whole_reading_of_a_line_agrees():
    """The same through facts.py, which first has to find out whose line it is and that it refuses."""
    wrong = []
    for op, text, rule in ROWS:
        (found, *_) = [*facts(Line(1, text)), None]
        if "is too SMALL" in text:
            continue
        said = found is not None and found.kind == REFUSAL and found.operator is not None
        if (
            not said
            or found.operator.op != op
            or found.refusal is None
            or found.refusal.rules[0] != rule
        ):
            wrong.append((op, text, rule, found))
    assert not wrong


@pytest.mark.parametrize(
    ("text", "value", "limit"),
    [
        ("EZ0024: Parameter K of operator X has incorrect value 20. It should be (0, 16].", "20", "(0, 16]"),
        ("EZ9999: expertIdShape's dim1(k) should be in (0, 16], but got expertIdShape's dim1=20.", "20", "(0, 16]"),
        ("EZ9999: xShape dims1(H) should be in [1024, 8192], but got 768.", "768", "[1024, 8192]"),
        ("EZ9999: moeExpertNum is 40, in case of unlayered, it must no more than 24.", "40", "24"),
        ("EZ9999: commAlg is invalid, only support fullmesh_v1, but got commAlg = ring.", "ring", "fullmesh_v1"),
    ],
    ids=["frame", "named", "bare", "is", "word"],
)  # fmt: skip
def test_value_and_limit_are_read(text, value, limit):
    found = refusal(text)
    assert (found.value, found.limit) == (value, limit)


@pytest.mark.parametrize(
    "text",
    [
        "EZ9999[PID: 7] (EZ9999):  Check attr failed.[FUNC:A][FILE:moe_distribute_combine_v2_tiling.cpp]",
        "EZ9999: Tiling check param failed.",
        "EZ9999: param shape of input tensor is invalid",
        "MoeDistributeDispatchA2 CheckShapeAndSetTiling Failed",
    ],
)
def test_links_of_a_chain_are_no_reasons(text):
    assert chained(text)


def test_a_line_without_parameters_has_no_rule():
    assert refusal("EZ9999: Inner Error!") is None
    assert (
        refusal(
            "EZ0004: Parameter tilingData of MoeDistributeDispatchV2 is required, but it is empty."
        )
        is None
    )
