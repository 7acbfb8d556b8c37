"""Any bytes: exit 0, 1 or 2, never a traceback, and exit 2 with one line on stderr."""

import json
import resource
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ascend_moe.cli import main

RELAXED = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CALL = {
    "op": "dispatch",
    "x": {"shape": [8, 7168], "dtype": "bfloat16"},
    "expert_ids": {"shape": [8, 8], "dtype": "int32"},
    "group_ep": "ep",
    "ep_world_size": 16,
    "ep_rank_id": 0,
    "moe_expert_num": 64,
    "scales": None,
    "env": {"HCCL_BUFFSIZE": "200"},
    "contract": "cann-9.1",
}
ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["bfloat16", "combine", "A2", "hierarchy"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def outcome(capsys, words):
    code = main(words)
    out, error = capsys.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert len(error.splitlines()) == 1
        assert out == ""
    else:
        assert error == ""
    assert out.isascii()
    assert error.isascii()
    return code


@RELAXED
@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("command", ["check", "explain"])
def test_binary(command, data, capsys, tmp_path):
    file = tmp_path / "input"
    file.write_bytes(data)
    assert outcome(capsys, [command, str(file)]) == 2


@RELAXED
@given(key=st.one_of(st.sampled_from(sorted(CALL)), st.text(max_size=8)), value=ANYTHING)
def test_check_with_one_wrong_entry(key, value, capsys, tmp_path):
    file = tmp_path / "input"
    file.write_text(json.dumps(CALL | {key: value}))
    outcome(capsys, ["check", str(file)])
    outcome(capsys, ["check", str(file), "--json"])


@RELAXED
@given(document=ANYTHING)
def test_check_with_any_json(document, capsys, tmp_path):
    file = tmp_path / "input"
    file.write_text(json.dumps(document))
    assert outcome(capsys, ["check", str(file)]) == 2


@RELAXED
@given(cut=st.integers(0, 400))
def test_check_with_broken_json(cut, capsys, tmp_path):
    file = tmp_path / "input"
    text = json.dumps(CALL)
    file.write_text(text[: min(cut, len(text) - 1)])
    assert outcome(capsys, ["check", str(file)]) == 2


NUMBERS = st.integers(0, 10**18) | st.sampled_from([10**30, 10**5000])


@RELAXED
@given(bs=NUMBERS, hidden=NUMBERS, needed=NUMBERS, have=NUMBERS, tail=st.text(max_size=40))
def test_explain_with_any_numbers(bs, hidden, needed, have, tail, capsys, tmp_path):
    shown = [number if number < 10**40 else "9" * 5000 for number in (bs, hidden, needed, have)]
    file = tmp_path / "input"
    file.write_text(
        f"HCCL_BUFFSIZE is too SMALL, maxBs = {shown[0]}, h = {shown[1]}, epWorldSize = 4, "
        f"localMoeExpertNum = 128, tokenNeedSizeDispatch = 4608, tokenNeedSizeCombine = 4096, "
        f"k = 10, NEEDED_HCCL_BUFFSIZE = {shown[2]}MB, HCCL_BUFFSIZE={shown[3]}MB {tail}",
        encoding="utf-8",
        errors="replace",
    )
    assert outcome(capsys, ["explain", str(file)]) == 0


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "EZ9999: ",
                "EI0001: Value ",
                "Parameter ",
                "of operator MoeDistributeDispatchV2 ",
                "has incorrect value ",
                "It should be ",
                "HCCL_BUFFSIZE is too SMALL, ",
                "maxBs = ",
                "call aclnnAbc failed, error code is ",
                "fault kernel_name=",
                "OpName:[",
                "ret = ",
                "507014",
                "[FUNC:",
                "[FILE:a_b_tiling.cpp]",
                "(",
                "\\n",
                '\\"',
                "\x1b[31m",
                "AaBb" * 3000,
                " " * 3000,
                "0x800000 MTE instruction is out of range",
            ]
        ),
        st.text(max_size=6),
        st.integers(0, 10**12).map(str),
    ),
    max_size=14,
)


@RELAXED
@given(lines=st.lists(PIECES, max_size=5))
def test_explain_with_pieces_of_real_lines(lines, capsys, tmp_path):
    file = tmp_path / "input"
    file.write_text(
        "\n".join("".join(pieces) for pieces in lines), encoding="utf-8", errors="replace"
    )
    outcome(capsys, ["explain", str(file)])
    outcome(capsys, ["explain", str(file), "--json"])


@pytest.mark.parametrize("words", [["buffsize"], ["check"], ["bogus"], []])
def test_usage_exits_2_without_a_traceback(words, capsys):
    try:
        code = main(words)
    except SystemExit as caught:
        code = caught.code
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "buffsize --product A3 --max-bs 64 --hidden 7168 --topk 8 --ep 16 --experts 256 --have 478",
        "check FILE",
        "explain X-26",
    ],
)
def test_answers_without_torch_and_at_once(words, tmp_path):
    file = tmp_path / "call.json"
    file.write_text(json.dumps(CALL))
    arguments = words.replace("FILE", str(file)).split()
    code = (
        "import sys; from ascend_moe.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'torch_npu' not in sys.modules; sys.exit(code)"
    )
    seconds = []
    for _ in range(5):  # processor time: other tests share the machine
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", code, *arguments], check=True, timeout=60, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.2
