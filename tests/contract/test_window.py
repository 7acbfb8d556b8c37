"""HCCL_BUFFSIZE as HCCL reads it, and the two rules about it."""

import pytest

from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import Setting, example_call
from ascend_moe.contract.window import read_hccl_buffsize


@pytest.mark.parametrize(
    ("text", "mb", "question"),
    [
        (None, 200, ""),
        ("512", 512, ""),
        ("0512", 512, ""),
        ("0000000512", 512, ""),
        ("65535", 65535, ""),
        ("65536", 65536, "mean 64"),
        ("1048576", 1048576, "mean 1024"),
        ("104857600", 104857600, "mean 100"),
        ("4294967295", 4294967295, "mean 4095"),
    ],
)
def test_what_hccl_takes(text, mb, question):
    configured = read_hccl_buffsize({} if text is None else {"HCCL_BUFFSIZE": text})
    assert (configured.mb, configured.refused) == (mb, "")
    assert configured.source == ("default" if text is None else "HCCL_BUFFSIZE")
    assert configured.question.endswith(question)
    assert ("MB, not KB or bytes?" in configured.question) is bool(question)
    if question:  # which the operators' tiling would cut
        assert "16 bits" in configured.question


@pytest.mark.parametrize(
    "text",
    [
        *("512MB", "-1", "-0", " 512", "+512", "5.5", "0", "", "MB512", "0x200", "\u0663", "512\n"),
        *("4294967296", "00000000512", "9" * 5000),
    ],
)
def test_what_hccl_refuses(text):
    configured = read_hccl_buffsize({"HCCL_BUFFSIZE": text})
    assert configured.mb == 0
    assert "EI0001" in configured.refused
    assert configured.refused.isascii()
    assert len(configured.refused) < 200


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


def test_a_refused_variable_is_an_error_and_the_only_one():
    (violation,) = found("dispatch", "A3", {"HCCL_BUFFSIZE": "512MB"})
    assert (violation.rule, violation.level) == ("E-01", "error")
    assert found("dispatch", "A3", {"HCCL_BUFFSIZE": "512MB"}, window_mb=478) == []


def test_a_number_that_cannot_be_meant_is_a_warning():
    (violation,) = found("dispatch", "A3", {"HCCL_BUFFSIZE": "1048576"})
    assert (violation.rule, violation.level) == ("E-01", "warning")


def test_minimum_of_a3():
    small = {"BS": 1, "H": 1024, "K": 1, "moe_expert_num": 16}
    assert [v.rule for v in found("dispatch", "A3", {"HCCL_BUFFSIZE": "1"}, **small)] == ["E-01"]
    assert found("dispatch", "A3", {"HCCL_BUFFSIZE": "2"}, **small) == []
