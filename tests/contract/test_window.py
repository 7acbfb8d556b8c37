"""HCCL_BUFFSIZE as HCCL reads it, and the two rules about it."""

import pytest

from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import Setting, example_call
from ascend_moe.contract.window import read_hccl_buffsize


@pytest.mark.parametrize(
    ("text", "mb", "surprises"),
    [
        (None, 200, False),
        ("512", 512, False),
        ("65535", 65535, False),
        ("65536", 0, True),
        ("65736", 200, True),
        ("-1", 65535, True),
        ("512MB", 512, True),
        (" 512", 512, True),
        ("+512", 512, True),
        ("0512", 512, True),
        ("5.5", 5, True),
        ("0", 0, True),
        ("", 200, True),
        ("MB512", 200, True),
        ("0x200", 0, True),
        ("2147483648", 200, True),
        ("99999999999999999999", 200, True),
        ("\u0663", 200, True),
    ],
)
def test_reading(text, mb, surprises):
    configured = read_hccl_buffsize({} if text is None else {"HCCL_BUFFSIZE": text})
    assert configured.mb == mb
    assert bool(configured.surprise) == surprises
    assert configured.surprise.isascii()
    assert configured.source == ("default" if text is None else "HCCL_BUFFSIZE")


SIZES = {"BS": 64, "H": 7168, "K": 8, "moe_expert_num": 256}


def found(op, product, env, window_mb=None, contract="cann-8.2", **changes):
    example = example_call(Setting(op, product, contract, "fullmesh"), {**SIZES, **changes})
    return violations(
        op, example.args, product=product, contract=contract, env=env, window_mb=window_mb
    )


@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_too_small_is_an_error_on_a3_and_fits_exactly(op):
    assert found(op, "A3", {"HCCL_BUFFSIZE": "478"}) == []
    (violation,) = found(op, "A3", {"HCCL_BUFFSIZE": "477"})
    assert (violation.rule, violation.level) == ("X-39", "error")
    assert (violation.value, violation.limit) == (477, 478)
    for phrase in (
        "HCCL_BUFFSIZE is too SMALL",
        "NEEDED_HCCL_BUFFSIZE = 478 MB",
        "export HCCL_BUFFSIZE=478",
        "largest max_bs that fits: 63",
        "501219328 bytes",
    ):
        assert phrase in violation.message


@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_too_small_is_a_warning_on_a2(op):
    (violation,) = found(op, "A2", {"HCCL_BUFFSIZE": "100"})
    assert (violation.rule, violation.level) == ("X-39", "warning")


def test_the_default_counts_and_the_group_wins():
    assert "200 MB (default)" in found("dispatch", "A3", {})[0].message
    assert found("dispatch", "A3", {"HCCL_BUFFSIZE": "477"}, window_mb=478) == []
    (violation,) = found("dispatch", "A3", {"HCCL_BUFFSIZE": "478"}, window_mb=300)
    assert "300 MB (group)" in violation.message
    assert "hccl_buffer_size" in violation.message
    assert "export" not in violation.message


def test_global_bs_sizes_the_window():
    (violation,) = found("dispatch", "A3", {"HCCL_BUFFSIZE": "478"}, global_bs=128 * 16)
    assert violation.limit == 956


def test_tp_group_needs_its_own_window():
    changes = {"tp_world_size": 2, "group_tp": "tp", "moe_expert_num": 16, "H": 7168, "K": 16}
    env = {"HCCL_BUFFSIZE": "35"}
    messages = [v.message for v in found("dispatch", "A3", env, **changes) if v.rule == "X-39"]
    assert any("TP group" in message for message in messages)


def test_surprises_are_warnings_beside_the_error():
    rules = [(v.rule, v.level) for v in found("dispatch", "A3", {"HCCL_BUFFSIZE": "65736"})]
    assert rules == [("X-39", "error"), ("E-01", "warning")]


def test_minimum_of_a3():
    small = {"BS": 1, "H": 1024, "K": 1, "moe_expert_num": 16}
    assert [v.rule for v in found("dispatch", "A3", {"HCCL_BUFFSIZE": "1"}, **small)] == ["E-01"]
    assert found("dispatch", "A3", {"HCCL_BUFFSIZE": "2"}, **small) == []
