import io
import json
import sys

import pytest

from ascend_moe.cli import main
from ascend_moe.contract.rules import RULES
from ascend_moe.diagnosis.symptoms import CATALOGUE

# As printed in vllm-project/vllm-ascend#4051.
TOO_SMALL = (
    "(Worker_TP0_EP0 pid=940663) EZ9999[PID: 940663] 2025-11-07-06:32:37.914.373 (EZ9999):  "
    "HCCL_BUFFSIZE is too SMALL, maxBs = 64, h = 2048, epWorldSize = 4, localMoeExpertNum = 128, "
    "sharedExpertNum = 0, tokenNeedSizeDispatch = 4608, tokenNeedSizeCombine = 4096, k = 10, "
    "NEEDED_HCCL_BUFFSIZE(((maxBs * tokenNeedSizeDispatch * ep_worldsize * localMoeExpertNum) + "
    "(maxBs * tokenNeedSizeCombine * (k + sharedExpertNum))) * 2) = 294MB, HCCL_BUFFSIZE=200MB."
)
LOGS = {
    TOO_SMALL: ("HCCL_BUFFSIZE is too SMALL", "X-39"),
    TOO_SMALL.replace("HCCL_BUFFSIZE", "HCCL_BUFFSIZE_EP"): ("HCCL_BUFFSIZE is too SMALL", "X-39"),
    "HCCL_BUFFSIZE is too SMALL, should larger than 310MB": ("HCCL_BUFFSIZE is too SMALL", "X-39"),
    "TP HCCL_BUFFSIZE is too SMALL, A = 64, NEEDED_HCCL_BUFFSIZE(A * 2UL) = 456MB, "
    "TP HCCL_BUFFSIZE=200MB.": ("HCCL_BUFFSIZE is too SMALL", "X-39"),
    "call aclnnMoeDistributeDispatchV2 failed, error code is 561002": ("561002", None),
    "call aclnnMoeDistributeDispatchV4 failed, error code is 561000": ("561000", "E-06"),
    "Nnopbase fails to invoke the HcclAllocComResourceByTiling function of the hccl module. "
    "ret = 4, comm = 0xfffeb61f9000.": ("HcclAllocComResourceByTiling", "E-06"),
    "RuntimeError: EI0007: [PID: 2322] Failed to allocate resource[qp] with info": (
        "EI0007",
        "E-06",
    ),
    "Failed to allocate resource[DeviceMemory] with info [size:2147483648], ret 207001": (
        "207001",
        "X-39",
    ),
    "RuntimeError: ACL stream synchronize failed, error code:507014": ("507014", "E-13"),
    "error code is 507057": ("507057", "X-39"),
    "errorStr: The DDR address of the MTE instruction is out of range. fixp_error0 info: 0x60": (
        "MTE address out of range",
        "X-36",
    ),
    "[LINE:642] batchsize is invalid.": ("batchsize is invalid", "X-24"),
    "EZ0004: Parameter expertScales of op MoeDistributeDispatchV2 is required, but it is empty": (
        "expertScales is required",
        "D-10",
    ),
    "xActiveMask dim0 = 2 is not equal to x dim0 = 4": ("xActiveMask dim0 differs from x", "X-32"),
    "NPU driver: 24.1.0.3, firmware: 7.5.0.5.220": ("driver 24.1", "E-04"),
}


def findings(tmp_path, capsys, text, *flags):
    file = tmp_path / "log.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["explain", str(file), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["findings"]


@pytest.mark.parametrize(
    ("line", "expected"), LOGS.items(), ids=[name for name, _ in LOGS.values()]
)
def test_known_lines(tmp_path, capsys, line, expected):
    noise = "INFO 11-07 06:32:37 [shm_broadcast.py:548] nothing here\n"
    found = findings(tmp_path, capsys, noise + line + "\n" + noise)
    name, rule = expected
    named = {finding["name"]: finding for finding in found}
    assert name in named
    assert named[name]["line"] == 2
    assert rule is None or rule in named[name]["rules"]


def test_numbers_are_recomputed(tmp_path, capsys):
    (finding,) = findings(tmp_path, capsys, TOO_SMALL)
    # 2 * (64 * 4608 * 4 * 128 + 64 * 4096 * 10) = 293 * 2^20 exactly
    assert "recomputed: 307232768 bytes, so HCCL_BUFFSIZE=293 is enough." in finding["details"]
    assert "largest max_bs that fits 200 MB: 43." in finding["details"]
    assert "export HCCL_BUFFSIZE=293" in finding["details"]
    assert any("294 MB" in detail for detail in finding["details"])


# Tiling's wording for A3 hierarchy (ops-transformer, 2026-07), and a report of an EP line without slots.
HIERARCHY = (
    "HCCL_BUFFSIZE_EP is too SMALL, maxBs = 256, h = 7168,NEEDED_HCCL_BUFFSIZE_HIERARCHY("
    "(moeExpertNum * maxBs * (h * MAX_OUT_DTYPE_SIZE + (3 * (k + 7) / 8 * 8) *sizeof(uint32_t) + "
    "64) + 404 * 1024 * 1024)) = 2225MB, HCCL_BUFFSIZE=1024MB."
)
WITHOUT_SLOTS = (
    "HCCL_BUFFSIZE_EP is too SMALL, maxBs = 240, h = 4096, epWorldSize = 16, localMoeExpertNum = 16, "
    "k = 6 NEEDED = ((maxBs*8704*16*16) + (maxBs*8192*6)) * 2 = 1043MB, HCCL_BUFFSIZE = 1024MB"
)


def test_hierarchy_line_has_only_its_sum(tmp_path, capsys):
    (finding,) = findings(tmp_path, capsys, HIERARCHY)
    assert finding["details"] == [
        "the buffer has 1024 MB.",
        "the log asks for 2225 MB.",
        "export HCCL_BUFFSIZE=2225",
    ]


def test_line_without_slot_sizes_is_recomputed_from_h(tmp_path, capsys):
    (finding,) = findings(tmp_path, capsys, WITHOUT_SLOTS)
    # 2 * (240 * 8704 * 256 + 240 * 8192 * 6) = 1093140480 = 1042.5 MB
    assert finding["details"] == [
        "the buffer has 1024 MB.",
        "recomputed: 1093140480 bytes, so HCCL_BUFFSIZE=1043 is enough.",
        "largest max_bs that fits 1024 MB: 235.",
        "export HCCL_BUFFSIZE=1043",
    ]


def test_allocation_is_twice_the_buffer(tmp_path, capsys):
    line = "Failed to allocate resource[DeviceMemory] with info [size:2147483648]"
    (finding,) = findings(tmp_path, capsys, line)
    assert "twice 1024 MB" in finding["details"][0]


def test_repeated_lines_are_counted_and_differing_numbers_kept(tmp_path, capsys):
    other = TOO_SMALL.replace("maxBs = 64", "maxBs = 32").replace("294MB", "147MB")
    (finding,) = findings(tmp_path, capsys, "\n".join([TOO_SMALL] * 3 + [other]))
    assert finding["times"] == 4
    exports = [detail for detail in finding["details"] if detail.startswith("export")]
    assert exports == ["export HCCL_BUFFSIZE=293", "export HCCL_BUFFSIZE=147"]


def test_several_symptoms_most_telling_first(tmp_path, capsys):
    log = "error code is 561002\nsomething\n" + TOO_SMALL
    assert [finding["name"] for finding in findings(tmp_path, capsys, log)] == [
        "HCCL_BUFFSIZE is too SMALL",
        "561002",
    ]


def test_our_own_message_names_the_rules(tmp_path, capsys):
    file = tmp_path / "log.txt"
    file.write_text("Traceback\nX-26 error expert_ids: K is 17, allowed: 1..16\n")
    assert main(["explain", str(file)]) == 0
    assert "1 <= K <= 16" in capsys.readouterr().out


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_is_explained(rule, capsys):
    assert main(["explain", rule.id.lower()]) == 0
    text = capsys.readouterr().out
    assert rule.statement.split()[0] in text
    assert main(["explain", rule.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rule"]["id"] == rule.id


@pytest.mark.parametrize("symptom", CATALOGUE.values(), ids=lambda symptom: symptom.name)
def test_every_symptom_is_explained_by_name(symptom, capsys):
    assert main(["explain", symptom.name]) == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())


def test_standard_input(monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(TOO_SMALL.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["explain"]) == 0
    assert "HCCL_BUFFSIZE=293" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing recognised"),
        (b"all is well\n", "nothing recognised"),
        (bytes(range(256)) * 50, "nothing recognised"),
        (b"HCCL_BUFFSIZE" * 100000, "nothing recognised"),
    ],
)
def test_unknown_input_says_so(tmp_path, capsys, content, words):
    file = tmp_path / "log.bin"
    file.write_bytes(content)
    assert main(["explain", str(file)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert words in error


@pytest.mark.parametrize("what", ["X-99", "no such file", "a\0b", "x" * 5000])
def test_unknown_names_exit_2(what, capsys):
    assert main(["explain", what]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
