"""K1, K2, K4 to K7: refusals, buffer lines of relatives, codes, topology, AIV, and what HCCL reads."""

import pytest
from failed_runs import (
    CALL,
    KERNEL,
    OUT_OF_RANGE,
    TILING,
    TIMEOUT,
    TOO_SMALL,
    explained,
    rules,
    words,
)

from ascend_moe.diagnosis.aclnn import ACLNN_CODES
from ascend_moe.diagnosis.hccl import HCCL_CLASSES, HCCL_RESULTS
from ascend_moe.diagnosis.runtime import RUNTIME_CODES

DISPATCH = "MoeDistributeDispatchV2"


# K1 --------------------------------------------------------------------------------------------------------------


def test_a_refusal_is_the_reason_of_the_code():
    log = (
        "EZ9999: Inner Error!\n"
        "EZ9999[PID: 44] 2026-03-01-10:00:00.000.001 (EZ9999):  moeExpertNum is 40, in case of "
        "unlayered, it must no more "
        "than "
        "24.[FUNC:MoeDistributeDispatchA2CheckAttrAndSetTiling][FILE:moe_distribute_dispatch_v2_tiling.cpp][LINE:7]\n"
        "        TraceBack (most recent call last):\n"
        "       MoeDistributeDispatchA2 CheckAttrAndSetTiling "
        "Failed[FUNC:A][FILE:moe_distribute_dispatch_v2_tiling.cpp]\n"
        f"       {TILING.format(DISPATCH)}\n{CALL.format('MoeDistributeDispatchV4', 561002)}\n"
    )
    refusal, code = explained(log)
    assert refusal.rules == ("X-12",)
    assert "the line says 40, allowed: 24." in refusal.details
    assert "moe_expert_num / ep_world_size" in " ".join(refusal.details)
    assert "EP 16, 32 or 64" in refusal.advice
    assert (refusal.line, refusal.evidence[0][0]) == (2, 2)
    assert code.name == "561002"
    assert "does not say which" not in words([code])
    assert "line 2" in code.advice


def test_every_refusal_is_one_finding_in_the_order_of_the_log():
    log = "\n".join(
        (
            f"EZ0026: Parameter expertIds(k) of operator {DISPATCH} has incorrect value 20. Reason: in (0, 16].",
            f"EZ0024: Parameter groupEp of operator {DISPATCH} has incorrect value 200. It should be (0, 128).",
            "EZ0004: Parameter expertScales of MoeDistributeCombineV2 is required, but it is empty.",
            f"EZ0026: Parameter expertIds(k) of operator {DISPATCH} has incorrect value 21. Reason: in (0, 16].",
        )
    )
    found = explained(log)
    assert [finding.rules[0] for finding in found] == ["X-26", "X-01", "C-05"]
    assert [finding.times for finding in found] == [2, 1, 1]
    assert found[0].details == [
        "the line says 20, allowed: in (0, 16].",
        "the line says 21, allowed: in (0, 16].",
    ]


def test_a_reason_without_a_known_rule_is_quoted():
    line = (
        f"EZ9999: {DISPATCH} the moon must be full before tokens "
        f"travel.[FUNC:A][FILE:moe_distribute_dispatch_v2_tiling.cc]"
    )
    (finding,) = explained(line)
    assert finding.owner == "dispatch or combine"
    assert "the moon must be full" in finding.evidence[0][1]


PREFIXES = (
    "",
    "[rank3]: ",
    "[rank3]:[rank3]: ",
    "(Worker_TP0_EP0 pid=940663) ERROR 11-07 06:32:37 [multiproc_executor.py:671] ",
    "(EngineCore_DP1 pid=77) ",
    "2026-01-02T03:04:05.123456789Z stderr F ",
    "moe-decode-1  | ",
    "[pod/decode-0/engine] ",
    "(RayWorkerWrapper pid=1289, ip=10.1.2.3) ",
    "\x1b[36m(Worker pid=7)\x1b[0;0m \x1b[31m",
    "3: ",
    "[3]: ",
)


@pytest.mark.parametrize("prefix", PREFIXES, ids=range(len(PREFIXES)))
@pytest.mark.parametrize(
    "error", ["ascend_moe.contract.errors.ConstraintError: ", ""], ids=["named", "bare"]
)
def test_our_own_error_behind_any_prefix(prefix, error):
    log = f"{prefix}Traceback\n{prefix}{error}X-29 error comm_alg: is 'ring', allowed: \"\"\n"
    (finding,) = explained(log)
    assert finding.rules == ("X-29",)
    assert (finding.line, finding.owner) == (2, "dispatch or combine")


def test_lines_of_our_kernel_library():
    where = "MoeDistributeCombine on rank 1 of group ep: "
    found = explained(
        f"EU0000: {where}rank 2 did not come (time limit 30 s). It died, or has made another call"
    )
    assert [finding.name for finding in found] == ["a rank did not come"]
    found = explained(
        f"EU0000: {where}rank 9 did not come (time limit 30 s). It is in another server: it died, has made another "
        "call, or the link between the two is down"
    )
    assert [finding.name for finding in found] == ["a rank in another server did not come"]
    found = explained(
        f"EU0000: {where}the send queue to rank 9, over the network, stayed full (time limit 30 s). The link to that "
        "rank is down, or its process is gone"
    )
    assert [finding.name for finding in found] == ["a send queue stayed full"]
    found = explained(
        "MoeDistributeDispatch: group_ep ep cannot be opened; rank 1: no way to its queues between servers. CANN's own "
        "kernels cannot take over, they want other links than these ranks have now: ASCEND_MOE_KERNELS=off on all ranks"
    )
    assert [finding.name for finding in found] == ["no queues between servers"]
    found = explained(
        "MoeDistributeDispatch: group_ep ep of 4 ranks is on 2 servers: ranks 0, 1, 2 on one; rank 3 on another. "
        "CANN's kernels for A2 take up to 8 ranks for one server and would write to addresses that no core reaches "
        "there"
    )
    assert [finding.name for finding in found] == ["few ranks on several A2 servers"]
    (found,) = explained(
        "RuntimeError: MoeDistributeDispatch: HCCL_BUFFSIZE is too SMALL for the kernels of "
        "ascend_moe: the group has 2 MB, "
        "NEEDED_HCCL_BUFFSIZE = 15 MB (15728640 bytes for max_bs=64, H=7168, K=8)"
    )
    assert found.details == [
        "the buffer has 2 MB.",
        "the log asks for 15 MB.",
        "export HCCL_BUFFSIZE=15",
    ]


# K2 --------------------------------------------------------------------------------------------------------------

RELATIVES = {  # after sgl-kernel-npu f425bdf1, vllm-ascend 182b75ea84 and ops-transformer 3a280bcc3
    "DeepEP normal dispatch": (
        "CamMoeDispatchNormal",
        "HCCL_BUFFSIZE is too SMALL, maxBs = 2048, h = 7168, epWorldSize = 8, localMoeExpertNum = "
        "32, tokenNeedSizeDispatch = "
        "14848, tokenNeedSizeCombine = 14336, k = 8, NEEDED_HCCL_BUFFSIZE((maxBs * k * (tokenNeedSizeDispatch + "
        "tokenNeedSizeCombine) + 4MB + 204MB) * 2) = 1328MB, HCCL_BUFFSIZE=512MB.",
        1328,
    ),
    "DeepEP normal combine": (
        "CamMoeCombineNormal",
        "HCCL_BUFFSIZE is too SMALL, realBs = 2048, h = 7168, epWorldSize = 8, localMoeExpertNum = "
        "32, tokenNeedSizeCombine = "
        "14336, k = 8, NEEDED_HCCL_BUFFSIZE(((realBs * k * tokenNeedSizeCombine * 2)) + 8MB + 404MB) * 2) = 1273MB, "
        "HCCL_BUFFSIZE=512MB.",
        1273,
    ),
    "DeepEP low latency": ("MoeLowLatencyDispatchV2", TOO_SMALL.format("", 294), 294),
    "notify": ("NotifyDispatch", "HCCL_BUFFSIZE is too SMALL, should larger than 310MB.", 311),
    "dispatch_ffn_combine": (
        "DispatchFFNCombine",
        "HCCL_BUFFSIZE is too SMALL, m = 512, k = 7168, topK = 8 expected HCCL_BUFFSIZE is ((m * k * topK * "
        "sizeof(int8_t)) * 3 + 3MB)= 94MB, HCCL_BUFFSIZE=50MB.",
        94,
    ),
    "MegaMoe": (
        "MegaMoe",
        "cclBufferSize(209715200 Bytes, 200 MB) should be >= leastCclBufferSize(314572800 Bytes, 300 MB). "
        "maxRecvTokenNum=65536, h=7168. Suggestion: set hccl buffsize to 301 MB.",
        301,
    ),
    "moe_ep_dispatch": (
        "MoeEpDispatch",
        "HCCL_BUFFSIZE is too SMALL, need 777MB, available 200MB.",
        777,
    ),
    "fused deep moe": (
        "FusedDeepMoe",
        "HCCL_BUFFSIZE is too SMALL, epRankSize = 16, maxBs = 64, moeExpertNumPerRank = 16, "
        "tokenLength = 7168,  NEEDED_HCCL_"
        "BUFFSIZE(epRankSize * maxBs * moeExpertNumPerRank * tokenLength * TOKEN_DTYPE_BYTE_SIZE * "
        "DOUBLE_BUFFER) = 449MB, "
        "HCCL_BUFFSIZE=200MB.",
        449,
    ),
}


@pytest.mark.parametrize(("name", "line", "mb"), RELATIVES.values(), ids=list(RELATIVES))
def test_a_relatives_buffer_line_is_repeated(name, line, mb):
    (finding,) = explained(f"[ERROR] OP(7,python3):2026-01-02-03:04:05.000.000 {name} {line}")
    assert finding.owner == "another operator"
    assert finding.operator == name
    assert f"export HCCL_BUFFSIZE={mb}" in finding.details
    assert not any("recomputed" in detail or "max_bs" in detail for detail in finding.details)
    assert not finding.rules


def test_the_first_generation_is_repeated_too():
    (finding,) = explained(
        "MoeDistributeDispatch HCCL_BUFFSIZE is too SMALL, maxBs = 64, h = 7168, epWorldSize = 16, "
        "localMoeExpertNum = "
        "16,ep_worldsize * maxBs * h * 2 * 2 * localMoeExpertNum = 449MB, HCCL_BUFFSIZE=200MB."
    )
    assert "export HCCL_BUFFSIZE=449" in finding.details
    assert not any("recomputed" in detail for detail in finding.details)


@pytest.mark.parametrize(
    ("printed", "export"),
    [(294, 293), (293, 293), (295, 295), (30592, 30592)],
    ids=["floor plus one", "exact", "another sum", "far off"],
)
def test_own_sum_counts_only_where_the_line_agrees(printed, export):
    (finding,) = explained(TOO_SMALL.format(f"{DISPATCH} ", printed))
    assert f"export HCCL_BUFFSIZE={export}" in finding.details
    assert any("recomputed" in detail for detail in finding.details) is (export == 293)


# K4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [*RUNTIME_CODES, *ACLNN_CODES], ids=lambda entry: entry.name)
def test_every_number_is_recognised_in_a_line(entry):
    found = explained(f"RuntimeError: something of the NPU failed, error code is {entry.name}")
    assert [finding.name for finding in found] == [entry.name]
    assert found[0].meaning == entry.meaning


@pytest.mark.parametrize("entry", HCCL_CLASSES, ids=lambda entry: entry.name)
def test_every_class_of_hccl_is_recognised(entry):
    found = explained(f"{entry.name}: something about the group of ranks.")
    assert entry.name in [finding.name for finding in found]


@pytest.mark.parametrize("number", [3, 9, 11, 24])
def test_results_of_hccl(number):
    line = (
        f"errno[561000] OpName:[{DISPATCH}_0] Nnopbase fails to invoke the "
        f"HcclAllocComResourceByTiling function. ret = {number},"
    )
    allocation, _ = explained(line)
    assert f"HCCL returned {number}: {HCCL_RESULTS[number].symbol}." in allocation.details[0]
    memory = number in (3, 24)
    assert ("X-39" in allocation.rules) is memory
    assert ("E-12" in allocation.rules) is not memory


@pytest.mark.parametrize(
    ("line", "number", "kind"),
    [
        ("Vector core execution timed out", "507034", "vector core timeout"),
        ("the vector core execution is abnormal", "507035", "vector core exception"),
        ("error code is 107020", "107020", "task timeout"),
        ("error code is 507046", "507046", "synchronising a stream"),
        ("error code is 561003", "561003", "binary was not found"),
    ],
    ids=["507034", "507035", "107020", "507046", "561003"],
)
def test_meanings(line, number, kind):
    (finding,) = explained(f"RuntimeError: {line}")
    assert finding.name == number
    assert kind in finding.meaning.lower()


@pytest.mark.parametrize(
    "line",
    [
        "INFO worker 507014 started",
        "INFO [pid 507014] EZ-pass",
        "loss 507014.5 error",
        "pid=561002 exited with error",
        "read 0x507014 bytes with error",
        "EE: 5070141 tokens failed",
    ],
)
def test_numbers_that_are_none(line):
    assert not explained(line)


# K5, K6 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["507057", "507015", "507035"])
def test_topology_and_link_are_suspects(code):
    found = explained(f"{KERNEL.format(DISPATCH)}\n{OUT_OF_RANGE}\nerror code is {code}")
    for finding in found:
        assert "E-12" in finding.rules
        assert "super node" in words([finding])
        assert "a link between the ranks" in words([finding])
    assert "comm_alg='hierarchy'" in words(found)


def test_what_the_log_shows_moves_a_suspect_to_the_front():
    log = f"{KERNEL.format(DISPATCH)}\n{OUT_OF_RANGE}\n"
    assert "window" in explained(log)[0].causes[0].says
    assert "super node" in explained(log + "rank table: 2 servers, RoCE")[0].causes[0].says
    finding = explained(log + "EI0013: An error CQE occurred")[0]
    assert "a link" in finding.causes[0].says
    assert (3, "EI0013: An error CQE occurred") in finding.evidence


def test_aiv_alone_is_no_failure():
    assert not explained('export HCCL_OP_EXPANSION_MODE="AIV"\nRuntimeError: NPU out of memory.')


@pytest.mark.parametrize(
    "line", [TIMEOUT, "error code is 107020", "Vector core execution timed out"]
)
def test_aiv_beside_a_hang_is_the_first_suspect(line):
    found = explained(f"HCCL_OP_EXPANSION_MODE=AIV\n{KERNEL.format(DISPATCH)}\n{line}")
    assert "E-13" in rules(found)
    assert "AIV" in found[0].causes[0].says


def test_aiv_beside_a_crash_is_none():
    found = explained(f"HCCL_OP_EXPANSION_MODE=AIV\n{KERNEL.format(DISPATCH)}\n{OUT_OF_RANGE}")
    assert "E-13" not in rules(found)


REFUSED_VALUE = (
    "EI0001: Value {} for environment variable HCCL_BUFFSIZE is invalid. "
    "Expected value: equal to or greater than 1(MB)."
)

# K7 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "export"),
    [
        (REFUSED_VALUE.format("1024M"), 1024),
        (REFUSED_VALUE.format("-1"), None),
        ("EI0001: Environment variable [HCCL_BUFFSIZE] is invalid. Reason: [Value 0].", None),
    ],
    ids=["a unit", "negative", "older words"],
)
def test_a_variable_that_hccl_refuses(line, export):
    (finding,) = explained(line)
    assert finding.name == "HCCL_BUFFSIZE is invalid"
    assert finding.rules == ("E-01",)
    exports = [detail for detail in finding.details if detail.startswith("export")]
    assert exports == ([f"export HCCL_BUFFSIZE={export}"] if export else [])


def test_another_variable_is_the_class():
    found = explained("EI0001: Value x for environment variable HCCL_CONNECT_TIMEOUT is invalid.")
    assert [finding.name for finding in found] == ["EI0001"]
    assert "HCCL_BUFFSIZE" not in words(found)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("HCCL function error: HcclAllGather(a, b, c), error code is 9 [something of 2026]", 9),
        ("[hcclCommInitRootInfoConfig] errNo[0x0000000005000006] HcclCommInit failed, ret=11", 11),
    ],
    ids=["torch_npu", "HCCL"],
)
def test_other_functions_of_hccl(line, number):
    (finding,) = explained(line)
    assert finding.name == "HCCL function error"
    assert HCCL_RESULTS[number].symbol in finding.details[0]


def test_a_reason_in_the_line_of_the_call():
    (finding,) = [
        each
        for each in explained(
            "RuntimeError: aclnnMoeDistributeCombineV3 failed, detail:EZ9999: Inner Error! "
            "expandX's dim0 not greater than or equal to A * tpWorldSize, expandX's dim0 = 100, A = 128"
        )
        if each.rules
    ]
    assert finding.rules == ("C-02",)


def test_a_graph_without_rows():
    (finding,) = explained(
        "E89999: [MoeDistributeCombineV2] expand_x contains negative or zero dimension"
    )
    assert finding.rules == ("X-24",)


def test_an_error_of_hccl_beside_another_operator_is_told_without_rules():
    found = explained(f"EI0006: Getting socket times out.\n{CALL.format('Matmul', 507014)}")
    assert {finding.name for finding in found} == {"EI0006", "another operator: Matmul"}
    assert not rules(found)
    memory = explained(f"EI0007: Failed to allocate resource[qp]\n{CALL.format('Matmul', 507014)}")
    assert not rules(memory)
