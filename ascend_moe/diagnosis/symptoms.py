"""Lines that say more than a number: what they look like and what they mean.

A line that names a rule of tiling is not here: refusals.py reads those. Numbers and classes are in
runtime.py, aclnn.py and hccl.py; `CATALOGUE` is all of them, in the order of docs/errors.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ascend_moe.diagnosis.aclnn import ACLNN_CODES, OPERATOR_CLASSES
from ascend_moe.diagnosis.causes import SAME_EVERYWHERE, WRITES_BEYOND
from ascend_moe.diagnosis.entry import CRASH, HANG, LINK, REFUSED, SET_UP, Entry
from ascend_moe.diagnosis.hccl import HCCL_CLASSES, HCCL_RESULTS
from ascend_moe.diagnosis.runtime import RUNTIME_CLASSES, RUNTIME_CODES


@dataclass(frozen=True)
class Symptom(Entry):
    """An entry with the line that shows it.

    Attributes:
        pattern: searched in one line.
        said: rules that the line itself speaks of.
        ours: whether only this project's two operators, or its library, print such a line.
    """

    pattern: re.Pattern[str] = field(default=re.compile("(?!)"))
    said: tuple[str, ...] = ()
    ours: bool = False

    @property
    def rules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.said, *super().rules)))


BUFFER = Symptom(
    name="HCCL_BUFFSIZE is too SMALL",
    meaning="The windows of dispatch and combine do not fit into the HCCL buffer of the group.",
    kind=SET_UP,
    advice=(
        "Set HCCL_BUFFSIZE on every rank before the process group is created, or lower max_bs. "
        "HCCL_BUFFSIZE_EP, which newer messages print, is no variable: the one to set is "
        "HCCL_BUFFSIZE."
    ),
    source="ops-transformer 3a280bcc3, mc2/moe_distribute_dispatch_v2/op_host/op_tiling/"
    "moe_distribute_check_win_size.h",
    pattern=re.compile(
        r"(?:HC?CL[_ ]BUFFSIZE(?:_EP|_TP)?|hccl buffer(?: size)?) is too (?:SMALL|small)"
        r"|[cC]clBufferSize\b.{0,80}should (?:be )?>=\s{0,3}leastCclBufferSize"
    ),
    said=("X-39", "E-01"),
)
MTE = Symptom(
    name="MTE address out of range",
    meaning="A kernel addressed memory beyond a buffer.",
    kind=CRASH,
    advice="The kernel is named by 'fault kernel_name=' near it.",
    causes=WRITES_BEYOND,
    source="hiascend, CANN 9.0.0 troubleshooting, 'Execution Error of the Moe Dispatch/Combine Operator Due "
    "to Network Issues'; vllm-ascend#2674",
    pattern=re.compile(
        r"MTE instruction is out of range|MTE.{0,40}out of range|errcode:\(0x800000\b"
    ),
)
ALLOCATION = Symptom(
    name="HcclAllocComResourceByTiling",
    meaning="HCCL could not get the resources of the group: device memory, queue pairs or links.",
    kind=SET_UP,
    advice="Look for EI0007 or 207001 near it.",
    causes=("memory", "queue pairs", "set-up"),
    source="hcomm 8958adbf03, include/hccl/hccl_types.h",
    pattern=re.compile(
        r"HcclAllocComResourceByTiling.{0,160}ret\s*=|fails to invoke the HcclAllocCom"
    ),
)
FUNCTION = Symptom(
    name="HCCL function error",
    meaning="A function of HCCL failed.",
    kind=SET_UP,
    advice="Look for an EI class near it.",
    source="hcomm 8958adbf03, include/hccl/hccl_types.h",
    pattern=re.compile(r"HCCL function error|\b[hH]ccl[A-Z]\w{2,60}\b.{0,120}\bret\s?[=:]\s?\[?\d"),
)
VARIABLE = Symptom(
    name="HCCL_BUFFSIZE is invalid",
    meaning=(
        "HCCL reads HCCL_BUFFSIZE as digits only, at most 32 bits and at least 1, in MB; anything else "
        "starts no process group."
    ),
    advice="Export a plain number of MB on every rank.",
    source="hcomm 8958adbf03, src/legacy/ascend910/platform/common/externalinput.cc:1496",
    pattern=re.compile(
        r"(?:Value (\S{1,60}) for environment variable|nvironment variable) \[?HCCL_BUFFSIZE\]? .{0,60}invalid"
        r"|parse HCCL_BUFFSIZE failed|Invalid HCCL_BUFFSIZE"
    ),
    said=("E-01",),
)
AIV = Symptom(
    name="HCCL_OP_EXPANSION_MODE=AIV",
    meaning=(
        "Collectives run on vector cores. Beside dispatch and combine they can want more cores together "
        "than there are, which was seen as a hang (107020, 507014, 507034)."
    ),
    advice="Where these operators hang: unset HCCL_OP_EXPANSION_MODE on all ranks. Alone it is no failure.",
    source="vllm-ascend#14928, #14296",
    pattern=re.compile(r"HCCL_OP_EXPANSION_MODE\W{1,4}AIV\b"),
    said=("E-13",),
)
DRIVER = Symptom(
    name="driver 24.1",
    meaning="Driver 24.1 hangs in these operators on A2.",
    advice="Install driver 25.0.RC1.1 or later (CANN 9.1: 25.2 or later), the same on all nodes.",
    source="vllm-ascend#12430, #4972, #5468",
    pattern=re.compile(r"(?i)driver\D{0,40}\b24\.1\."),
    said=("E-04",),
)
SYMPTOMS: tuple[Symptom, ...] = (
    BUFFER,
    VARIABLE,
    Symptom(
        name="unsupported SoC version",
        meaning="The operator package was built for another chip.",
        advice="Install the CANN kernels of this chip; A2 is Ascend910B, A3 is Ascend910_93.",
        source="sglang#17222",
        pattern=re.compile(r"(?i)not support(?:ed)? soc version|soc version .{0,40}not support"),
    ),
    Symptom(
        name="contains negative or zero dimension",
        meaning="Shape inference of a graph met a size of zero: a rank without tokens or rows.",
        kind=REFUSED,
        advice="Give every rank at least one token, padded and masked where the path takes a mask.",
        source="vllm-ascend#4213",
        pattern=re.compile(
            r"MoeDistribute(?:Dispatch|Combine)\w{0,4}\b.{0,80}negative or zero dimension"
        ),
        said=("X-24",),
    ),
    MTE,
    ALLOCATION,
    FUNCTION,
    Symptom(
        name="a rank in another server did not come",
        meaning="Our kernels gave up: what a rank in another server sends over the network did not arrive.",
        kind=HANG,
        advice="Look at the log of the rank that the line names. If that rank waited as well, check the link between "
        "the two: hccn_tool -i N -link -g, and hccn_tool -i N -ping -g address A.",
        source="kernels/op_api/error_record.cpp",
        pattern=re.compile(
            r"\brank \d+ did not come \(time limit \d+ s\)\. It is in another server"
        ),
        said=("X-08", "X-40"),
        ours=True,
    ),
    Symptom(
        name="a send queue stayed full",
        meaning="Our kernels gave up: the network card took nothing more for a rank in another server.",
        kind=LINK,
        advice="Check the link to the rank that the line names: hccn_tool -i N -link -g.",
        source="kernels/op_api/error_record.cpp",
        pattern=re.compile(r"\bthe send queue to rank \d+, over the network, stayed full"),
        ours=True,
    ),
    Symptom(
        name="no queues between servers",
        meaning="Our kernels cannot reach the other servers, and the group's links are made: CANN's own full mesh does "
        "not run on them.",
        kind=SET_UP,
        advice="The line says what is missing; most often it is a driver before 25.0.RC1.1. Or run CANN's own kernels, "
        "from the start: export ASCEND_MOE_KERNELS=off on every rank.",
        source="kernels/op_api/deciding.cpp, windows/rdma.cpp",
        pattern=re.compile(r"CANN's own kernels cannot take over, they want other links"),
        causes=("driver",),
        ours=True,
    ),
    Symptom(
        name="few ranks on several A2 servers",
        meaning="At most 8 ranks are on several A2 servers: CANN's kernels would take them for one and write to "
        "addresses that no core reaches, and ours do not serve the group.",
        kind=SET_UP,
        advice="Put all ranks of the group on one server, or equally many on each, in the order of the ranks. The line "
        "names the servers with their ranks, and why ours do not serve it.",
        source="kernels/op_api/deciding.cpp; vllm-ascend#16193",
        pattern=re.compile(r"CANN's kernels for A2 take up to 8 ranks for one server"),
        ours=True,
    ),
    Symptom(
        name="a rank did not come",
        meaning="Our kernels gave up: a rank of the group did not take part in time.",
        kind=HANG,
        advice=f"Look at the log of the rank that the line names. {SAME_EVERYWHERE}",
        source="kernels/op_api/error_record.cpp, opening.cpp",
        pattern=re.compile(
            r"\brank \d+ did not come \(time limit(?! \d+ s\)\. It is in another server)"
            r"|did not come to open the group"
        ),
        said=("X-08", "X-40"),
        ours=True,
    ),
    Symptom(
        name="ranks made different calls",
        meaning="Ranks of the group called with different arguments.",
        advice=SAME_EVERYWHERE,
        source="kernels/op_api/error_record.cpp, opening.cpp",
        pattern=re.compile(r"\brank \d+ made another call|\branks of .{1,140} differ: "),
        said=("X-40", "X-45"),
        ours=True,
    ),
    Symptom(
        name="the HCCL buffer was overwritten",
        meaning="Something else wrote to the HCCL buffer of the EP group.",
        advice="Nothing but dispatch and combine may run in an EP group: make one for them alone.",
        source="kernels/op_api/error_record.cpp",
        pattern=re.compile(r"somebody else has written to the HCCL buffer"),
        said=("E-06",),
        ours=True,
    ),
    Symptom(
        name="the group goes on without ranks",
        meaning="The group was shrunk (ascend_moe.shrink): calls and graphs of before do not know who is left.",
        advice=(
            "Pass the elastic_info that ascend_moe.shrink returned to every call, and capture graphs "
            "again with it."
        ),
        source="kernels/op_api/phases.cpp, survivors.cpp; ascend_moe/cpu/survivors/shrinking.py",
        pattern=re.compile(r"\bgoes on without ranks \[?\d[\d, ]*\]?"),
        said=("E-15",),
        ours=True,
    ),
    Symptom(
        name="a rank was left out",
        meaning="The other ranks have taken this one for dead and go on without it.",
        kind=HANG,
        advice=(
            "It cannot come back: start it again. If it was only slow, raise ASCEND_MOE_TIMEOUT_S "
            "on every rank."
        ),
        source="kernels/op_api/error_record.cpp",
        pattern=re.compile(r"the others take it for dead and go on without it"),
        said=("E-15",),
        ours=True,
    ),
    Symptom(
        name="ranks disagree who is gone",
        meaning="Ranks called ascend_moe.shrink with different ranks.",
        advice=(
            "Ask ascend_moe.missing_ranks, or add the ranks that the error names, and call it again."
        ),
        source="ascend_moe/cpu/survivors/meeting.py",
        pattern=re.compile(r"ranks disagree about who is gone"),
        said=("E-15",),
        ours=True,
    ),
    AIV,
    DRIVER,
)

# Words that stand for a number or class in lines without one.
IN_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "507014",
        re.compile(r"(?i)ai ?core execution times? out|\[aicore timeout\]|\baicore timeout\b"),
    ),
    (
        "507034",
        re.compile(
            r"(?i)vector core (?:execution )?(?:timed? ?out|times out)|\[vector core timeout\]"
        ),
    ),
    (
        "507035",
        re.compile(r"(?i)vector core exception|vector core execution is abnormal"),
    ),
    ("507057", re.compile(r"(?i)suspect remote error")),
    ("EI0007", re.compile(r"Failed to allocate resource ?\[?(?:qp|notify)", re.IGNORECASE)),
    ("207001", re.compile(r"Failed to allocate resource ?\[?DeviceMemory")),
)

NUMBERED: dict[str, Entry] = {entry.name: entry for entry in (*RUNTIME_CODES, *ACLNN_CODES)}
CLASSES: dict[str, Entry] = {
    entry.name: entry for entry in (*HCCL_CLASSES, *RUNTIME_CLASSES, *OPERATOR_CLASSES)
}
SECTIONS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    ("Lines", SYMPTOMS),
    ("Numbers of the runtime", RUNTIME_CODES),
    ("Numbers of aclnn calls", ACLNN_CODES),
    ("Results of HCCL functions", tuple(HCCL_RESULTS.values())),
    ("Classes of HCCL", HCCL_CLASSES),
    ("Classes of the runtime beside collectives", RUNTIME_CLASSES),
    ("Classes of an operator's own checks", OPERATOR_CLASSES),
)
CATALOGUE: dict[str, Entry] = {entry.name: entry for _, table in SECTIONS for entry in table}
