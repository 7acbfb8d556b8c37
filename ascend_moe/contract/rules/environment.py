"""E-xx: environment variables, drivers, communication groups and usage."""

from __future__ import annotations

import sys

from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import HIERARCHY, WINDOW_MB_DEFAULT, WINDOW_MB_MIN
from ascend_moe.contract.path import PCIE, ROCE, environment_selects_hierarchy
from ascend_moe.contract.rules.buffer import window_setting
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    CURRENT_DOC,
    DOCS,
    DOCUMENTED,
    PROCESS,
    RANKS,
    SEED_DOC,
    TILING,
    Breach,
    Finding,
    Rule,
)
from ascend_moe.contract.signature import CANN_9_1, TENSOR_NAMES


def _hierarchy_variables(call: Call) -> Finding:
    if environment_selects_hierarchy(call.env):
        return Breach(f"{PCIE}=1, {ROCE}=0", "unset on A3, which ignores them")
    return None


def _no_gradient(call: Call) -> Finding:
    if not any(getattr(tensor, "requires_grad", False) for tensor in call.tensors):
        return None
    found = [
        Breach("requires grad", "inference only: torch.no_grad() or torch.inference_mode()", param)
        for param in TENSOR_NAMES[call.op]
        if getattr(getattr(call, param), "requires_grad", False)
    ]
    torch = sys.modules.get("torch")  # without torch the tensors are descriptions
    if torch is not None and not torch.is_grad_enabled():
        return None
    return found


ENVIRONMENT_RULES: tuple[Rule, ...] = (
    Rule(
        id="E-01",
        param="HCCL_BUFFSIZE",
        statement=(
            "HCCL_BUFFSIZE is a plain number of MB (HCCL takes digits only, 32 bits, at least 1; "
            f"default {WINDOW_MB_DEFAULT}), at least {WINDOW_MB_MIN} on A3, equal on all ranks, and "
            "large enough (X-39)."
        ),
        source=f"{DOCS}; {TILING}; hcomm, externalinput.cc ParseCclBufferSize",
        message="is {value} MB, needed: {limit} MB",
        check=window_setting,
        breaks={"BS": 1, "K": 1, "env": {"HCCL_BUFFSIZE": "1000GB"}},
        holds={"BS": 1, "K": 1, "env": {"HCCL_BUFFSIZE": "1000"}},
    ),
    Rule(
        id="E-02",
        param=PCIE,
        statement=(
            f"{PCIE}=1 with {ROCE}=0 selects hierarchy on A2 when comm_alg is empty; "
            "A3 ignores the pair."
        ),
        source=f"{DOCS}; {ACLNN_DOC}",
        message="is set ({value}), needed: {limit}",
        check=_hierarchy_variables,
        products=("A3",),
        level="warning",
        breaks={"env": {PCIE: "1", ROCE: "0"}},
        holds={"env": {}},
    ),
    Rule(
        id="E-03",
        param="HCCL_LOGIC_SUPERPOD_ID",
        statement="A3 hierarchy between super nodes needs HCCL_LOGIC_SUPERPOD_ID.",
        source=ACLNN_DOC,
        products=("A3",),
        contracts=(CANN_9_1,),
        paths=(HIERARCHY,),
        checked=DOCUMENTED,
        note="Whether ranks sit in different super nodes is not visible in a call.",
    ),
    Rule(
        id="E-04",
        param="driver",
        statement=(
            "CANN 9.1 and later need driver 25.2 or later; CANN 8.5 and 9.0 take 25.0. A2 needs 25.0.RC1.1 "
            "for comm_quant_mode = 2, H > 7168 or BS > 256, and hangs with 24.1. The same on all nodes."
        ),
        source=f"{DOCS}; hiascend, CANN 9.1.0 and 9.1.1 release notes, CANN and Ascend HDK version compatibility",
        checked=DOCUMENTED,
        note="`ascend-moe doctor` reads the driver version.",
    ),
    Rule(
        id="E-05",
        param="group_ep",
        statement="group_ep is the HCCL communicator name of this rank's EP process group.",
        source=SEED_DOC,
        checked=DOCUMENTED,
        note="Its length is X-01; ascend_moe.hccl_comm_name returns the name of a group.",
    ),
    Rule(
        id="E-06",
        param="group_ep",
        statement=(
            "One EP group per model serves all dispatch_v2 and combine_v2 calls and no other "
            "operator; a TP group likewise."
        ),
        source=DOCS,
        level="warning",
        checked=PROCESS,
        note=(
            "A second EP group in one process is a warning of the calls; foreign operators "
            "cannot be seen."
        ),
    ),
    Rule(
        id="E-07",
        param="group_tp",
        statement=(
            "Without TP, group_tp may name a real group and is ignored, as are tp_send_counts."
        ),
        source=SEED_DOC,
        checked=DOCUMENTED,
        note="A toleration: nothing to check.",
    ),
    Rule(
        id="E-08",
        param="assist_info_for_combine",
        statement="dispatch and combine are used in pairs; combine gets dispatch's own outputs.",
        source=DOCS,
        checked=DOCUMENTED,
        note=(
            "A combine call shows only shapes (C-02 to C-08); across ranks X-40 compares the "
            "attributes."
        ),
    ),
    Rule(
        id="E-09",
        param="group_ep",
        statement=(
            "Equal across layers: group_ep, ep_world_size, expert_shard_type, global_bs (with "
            "TP group_tp and tp_world_size)."
        ),
        source=SEED_DOC,
        level="warning",
        checked=PROCESS,
        note="A warning when a later call of the process differs.",
    ),
    Rule(
        id="E-10",
        param="tp_rank_id",
        statement="tp_rank_id is distinct in the TP group, ep_rank_id in the EP group.",
        source=SEED_DOC,
        checked=RANKS,
        note="Compared between the ranks: in every call on CPU, once per group on an NPU.",
    ),
    Rule(
        id="E-11",
        param="x",
        safety=True,
        statement=(
            "Inference only: no input requires grad while gradients are recorded. Graphs are "
            "static."
        ),
        source=DOCS,
        message="{value}; {limit}",
        check=_no_gradient,
        breaks={"expert_scales": ("BS", "K", "float32", "grad")},
        holds={"expert_scales": ("BS", "K", "float32")},
    ),
    Rule(
        id="E-12",
        param="ep_world_size",
        statement=(
            "A2 servers are connected by switches, A3 stays in one super node except in "
            "hierarchy; A2 with one server (ep_world_size <= 8) exists from cann-9.1 on."
        ),
        source=f"{CURRENT_DOC}; {ACLNN_DOC}",
        checked=DOCUMENTED,
        note=(
            "The sizes are X-05; the topology is not visible in a call. `ascend-moe doctor` "
            "warns of EP8 on A2."
        ),
    ),
    Rule(
        id="E-13",
        param="HCCL_OP_EXPANSION_MODE",
        statement="HCCL_OP_EXPANSION_MODE is not AIV in a process that calls these operators.",
        source=TILING,
        checked=DOCUMENTED,
        note="`ascend-moe doctor` warns: with AIV calls were seen to hang.",
    ),
    Rule(
        id="E-14",
        param="x",
        statement=(
            "Arguments are of the types of the operator's schema, tensors are dense, and the "
            "variables of this package hold values that it knows."
        ),
        source="op-plugin op_plugin/config/op_plugin_functions.yaml (2036fae6)",
        checked=DOCUMENTED,
        note=(
            "The CPU operators refuse such a call on all ranks; elsewhere the rank's own error "
            "comes first."
        ),
    ),
    Rule(
        id="E-15",
        param="elastic_info",
        statement=(
            "The ranks that elastic_info leaves out are those without which the others met last: by "
            "ascend_moe.shrink(), whose result is passed from then on."
        ),
        source="ascend_moe; CANN's operators do not know who meets",
        checked=RANKS,
        note="Compared in every call: before it runs on CPU, by the kernel on NPUs (docs/elastic.md).",
    ),
)
