"""K3: which operator failed. Another's failure is named and quoted, and nothing is advised about ours."""

import pytest
from failed_runs import (
    CALL,
    EXCEPTION,
    KERNEL,
    OUT_OF_RANGE,
    TILING,
    TIMEOUT,
    TOO_SMALL,
    explained,
    rules,
    words,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ABOUT_OURS = (  # phrases of advice
    "ascend-moe buffsize",
    "ASCEND_MOE_CHECK",
    "ascend_moe.install",
    "expert ids",
    "max_bs",
    "HCCL_OP_EXPANSION",
)

OTHERS = {
    "a kernel": ("RotaryMul", f"{OUT_OF_RANGE}\n{KERNEL.format('RotaryMul')}\n{EXCEPTION}"),
    "a kernel that hangs": ("MlaPreprocess", f"{TIMEOUT}\n{KERNEL.format('MlaPreprocess')}"),
    "a call": ("SwiGlu", CALL.format("SwiGlu", 561002)),
    "a call with a refusal": (
        "GroupedMatmulV4",
        f"{CALL.format('GroupedMatmulV4', 161002)}\n"
        "EZ1001: the groupListOptional must not be empty.[FUNC:CheckParams][FILE:aclnn_grouped_matmul.cpp]",
    ),
    "tiling": (
        "MoeGatingTopK",
        "EZ9999: Inner Error!\nEZ9999[PID: 9] (EZ9999):  k is invalid, expert num 300 should be in [1, 256]"
        f"[FUNC:CheckShape][FILE:moe_gating_top_k_tiling.cpp]\n{TILING.format('MoeGatingTopK')}",
    ),
    "no binary": ("QuantMatmulAllReduce", "Cannot find binary for op QuantMatmulAllReduce.\nerror code is 561003"),
    "a node of a graph": ("AllGatherMatmul", "errno[561002] OpName:[AllGatherMatmul_12] Tiling failed"),
    "an HCCL collective on vector cores": (
        "aiv_all_reduce_bfloat16_t",
        KERNEL.format("aiv_all_reduce_bfloat16_t") + "\n" + TIMEOUT + "\nexport HCCL_OP_EXPANSION_MODE=AIV",
    ),
    "a relative": (
        "MoeDistributeDispatchSetup",
        CALL.format("MoeDistributeDispatchSetup", 561002) + "\nerror code is 507014",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "log"), OTHERS.values(), ids=list(OTHERS))
def test_another_operator_is_named_and_left_alone(name, log):
    found = explained(log)
    assert [finding.owner for finding in found] == ["another operator"]
    assert name in found[0].name
    assert found[0].evidence[0][1] in log.replace("  ", " ")
    assert not rules(found)
    for phrase in ABOUT_OURS:
        assert phrase not in words(found)


def test_its_own_reason_is_quoted():
    found = explained(OTHERS["tiling"][1])
    assert any(
        "expert num 300" in detail and detail.startswith("reason, line 2")
        for detail in found[0].details
    )


def test_its_code_is_explained():
    found = explained(OTHERS["no binary"][1])
    assert "kernel's binary was not found" in words(found)


OURS = {
    "kernel": KERNEL.format("MoeDistributeCombineV2"),
    "call": CALL.format("MoeDistributeDispatchV4", 507015),
    "first generation": CALL.format("MoeDistributeDispatch", 507015),
    "node": f"errno[561000] OpName:[MoeDistributeCombineV2_7] failed\n{KERNEL.format('MoeDistributeCombineV2')}",
}


@pytest.mark.parametrize("line", OURS.values(), ids=list(OURS))
def test_ours_has_its_suspects(line):
    found = explained(f"{line}\n{OUT_OF_RANGE}")
    (mte,) = [finding for finding in found if finding.name == "MTE address out of range"]
    assert mte.owner == "dispatch or combine"
    assert {"X-39", "X-36", "X-37", "E-12"} <= set(mte.rules)


def test_followers_are_called_followers():
    log = (
        "EZ9999: moeExpertNum is invalid, only support (0, 1024], but got moeExpertNum=2048."
        "[FUNC:CheckAttr][FILE:moe_distribute_dispatch_v2_tiling.cpp]\n"
        f"{TILING.format('MoeDistributeDispatchV2')}\n{CALL.format('MoeDistributeDispatchV4', 561002)}\n"
        f"{CALL.format('InplaceCopy', 361001)}\n{CALL.format('Cast', 507014)}"
    )
    found = explained(log)
    assert found[0].rules == ("X-09",)
    assert [finding.owner for finding in found] == ["dispatch or combine"] * 2
    said = " ".join(found[0].details)
    assert "InplaceCopy (line 4) only follows" in said
    assert "Cast (line 5) only follows" in said


def test_ours_may_be_the_follower():
    """Ranks wait in dispatch for one whose attention kernel has crashed: the crash is the reason."""
    log = (
        f"[rank0]: {KERNEL.format('MoeDistributeDispatchV2')}\n[rank0]: error code is 507034 MoeDistributeDispatchV2\n"
        f"[rank3]: {OUT_OF_RANGE}\n[rank3]: {KERNEL.format('SparseFlashAttention')}\n"
        "[rank3]: error code is 507035 fault kernel_name=SparseFlashAttention_9f3c21aa_1"
    )
    log = log.replace("error code is 507034 ", "error code is 507034 fault kernel_name=")
    found = explained(log)
    assert [finding.owner for finding in found] == ["another operator"]
    assert "MoeDistributeDispatchV2" in " ".join(found[0].details)
    assert not rules(found)


def test_two_failures_are_both_told():
    log = (
        f"{KERNEL.format('RotaryMul')}\n{OUT_OF_RANGE}\n"
        + "\n" * 50
        + (
            f"{TOO_SMALL.format('MoeDistributeDispatchV2 ', 294)}\n{TILING.format('MoeDistributeDispatchV2')}"
        )
    )
    found = explained(log)
    assert {finding.owner for finding in found} == {"another operator", "dispatch or combine"}
    assert "X-36" not in rules(found)


def test_nobody_named():
    found = explained(OUT_OF_RANGE)
    assert [finding.owner for finding in found] == ["not named in the log"]
    assert "X-36" in rules(found)


# Lines of a failing run of ours; with the operator's name replaced they are another operator's run.
OUR_RUN = [
    "[rank1]: INFO dispatch of 64 tokens",
    TOO_SMALL.format("MoeDistributeDispatchV2 ", 294),
    "EZ0024: Parameter moeExpertNum of operator MoeDistributeDispatchV2 has incorrect value 2048. It should be "
    "(0, 1024].",
    "EZ9999: MoeDistributeDispatchV2 expertIdShape's dim1(k) should be in (0, 16], but got expertIdShape's dim1=20.",
    TILING.format("MoeDistributeDispatchV2"),
    CALL.format("MoeDistributeDispatchV2", 561002),
    OUT_OF_RANGE,
    KERNEL.format("MoeDistributeDispatchV2"),
    EXCEPTION,
    "error code is 507057, SUSPECT REMOTE ERROR",
    "export HCCL_OP_EXPANSION_MODE=AIV",
    "NPU driver: 24.1.0.3",
    "OpName:[MoeDistributeDispatchV2_3] Nnopbase fails to invoke the HcclAllocComResourceByTiling function. ret = 24,",
]


@settings(max_examples=200, deadline=None)
@given(
    kept=st.sets(st.integers(0, len(OUR_RUN) - 1), min_size=1),
    name=st.from_regex(r"[A-Z][a-z]{2,9}[A-Z][a-z]{2,9}(V[2-9])?", fullmatch=True),
    order=st.randoms(use_true_random=False),
)
def test_another_operators_run_never_yields_advice_about_ours(kept, name, order):
    lines = [OUR_RUN[index].replace("MoeDistributeDispatchV2", name) for index in sorted(kept)]
    order.shuffle(lines)
    if not any(name in line for line in lines):
        lines.append(KERNEL.format(name))
    found = explained("\n".join(lines))
    assert not rules(found)
    assert all(finding.owner == "another operator" for finding in found)
    for phrase in ABOUT_OURS:
        assert phrase not in words(found)


@settings(max_examples=100, deadline=None)
@given(kept=st.sets(st.integers(0, len(OUR_RUN) - 1)))
def test_any_part_of_our_own_run_is_read_without_failing(kept):
    explained("\n".join(OUR_RUN[index] for index in sorted(kept)))


def test_of_calls_that_only_report_the_first_is_suspected():
    log = f"{CALL.format('Matmul', 507057)}\n{CALL.format('MoeDistributeDispatchV2', 507057)}"
    found = explained(log)
    assert "Matmul" in found[0].name
    assert found[0].owner == "another operator"
    assert not rules(found)


def test_a_kernel_that_failed_outweighs_a_call_before_it():
    log = f"{CALL.format('MoeDistributeDispatchV2', 507014)}\n{OUT_OF_RANGE}\n{KERNEL.format('RotaryMul')}"
    found = explained(log)
    assert "RotaryMul" in found[0].name
    assert not rules(found)
