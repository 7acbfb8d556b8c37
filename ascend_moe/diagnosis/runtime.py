"""Numbers and classes of the NPU runtime."""

from __future__ import annotations

from ascend_moe.diagnosis.causes import WAITED, WRITES_BEYOND
from ascend_moe.diagnosis.entry import CRASH, ECHO, ERROR_CODES, HANG, LINK, MEMORY, OTHER, Entry

_HEADER = "runtime 681ef7610, include/external/acl/error_codes/rt_error_codes.h"


def _runtime(
    number: int,
    symbol: str,
    meaning: str,
    kind: str = OTHER,
    advice: str = "",
    causes: tuple[str, ...] = (),
) -> Entry:
    return Entry(str(number), meaning, kind, f"ACL_ERROR_RT_{symbol}", advice, causes, _HEADER)


ON_VECTOR_CORES = "Dispatch and combine run on vector cores, so this is a usual number of theirs."
NEAREST = "The kernel is named by 'fault kernel_name=' near it."
_OUT = "A kernel's core stopped at an access beyond its memory."

RUNTIME_CODES: tuple[Entry, ...] = (
    _runtime(
        507014,
        "AICORE_TIMEOUT",
        "AI core timeout: a kernel waited too long, usually for a peer that never wrote.",
        HANG,
        NEAREST,
        WAITED,
    ),
    _runtime(
        507034,
        "VECTOR_CORE_TIMEOUT",
        "Vector core timeout: as 507014, of a kernel on vector cores.",
        HANG,
        f"{ON_VECTOR_CORES} {NEAREST}",
        WAITED,
    ),
    _runtime(
        507015,
        "AICORE_EXCEPTION",
        "AI core exception: a kernel stopped; the reason stands in the lines around it.",
        CRASH,
        f"Look for 'MTE instruction is out of range'. {NEAREST}",
        WRITES_BEYOND,
    ),
    _runtime(
        507035,
        "VECTOR_CORE_EXCEPTION",
        "Vector core exception: as 507015, of a kernel on vector cores.",
        CRASH,
        f"{ON_VECTOR_CORES} Look for 'MTE instruction is out of range'. {NEAREST}",
        WRITES_BEYOND,
    ),
    _runtime(
        507057,
        "SUSPECT_REMOTE_ERROR",
        "A peer's memory may have failed, or this device wrote beyond what a peer offers.",
        CRASH,
        "Read the logs of the peers too.",
        ("window", "topology", "link", "ids", "dead peer", "disagreement"),
    ),
    _runtime(
        107020,
        "TASK_TIMEOUT",
        "Task timeout: a task was waited for too long, often on ranks whose peer has already died.",
        HANG,
        "Look for the earliest error of any rank.",
        ("dead peer", "disagreement", "aiv set"),
    ),
    _runtime(107019, "WAIT_TIMEOUT", "A wait took longer than its limit.", HANG),
    _runtime(
        507046,
        "STREAM_SYNC_TIMEOUT",
        "Synchronising a stream took too long: what runs on it did not end.",
        HANG,
        NEAREST,
        ("dead peer", "disagreement", "aiv set"),
    ),
    _runtime(
        507047,
        "EVENT_SYNC_TIMEOUT",
        "Waiting for an event took too long.",
        HANG,
        NEAREST,
        ("dead peer", "disagreement", "aiv set"),
    ),
    _runtime(
        507048, "FFTS_PLUS_TIMEOUT", "A task of a fused graph waited too long.", HANG, NEAREST
    ),
    _runtime(507017, "AICPU_TIMEOUT", "An AI CPU task waited too long.", HANG, NEAREST),
    _runtime(507012, "REPORT_TIMEOUT", "The device did not report in time.", HANG),
    _runtime(
        507915, "CCU_TIMEOUT", "A task of the collective unit (Ascend 950) waited too long.", HANG
    ),
    _runtime(
        507016, "AICORE_TRAP_EXCEPTION", "A kernel on an AI core stopped itself (trap).", CRASH
    ),
    _runtime(
        507036,
        "VECTOR_CORE_TRAP_EXCEPTION",
        "A kernel on a vector core stopped itself (trap).",
        CRASH,
    ),
    _runtime(507042, "AICORE_TRAP_READ_OVERFLOW", _OUT, CRASH, NEAREST, WRITES_BEYOND),
    _runtime(507043, "AICORE_TRAP_WRITE_OVERFLOW", _OUT, CRASH, NEAREST, WRITES_BEYOND),
    _runtime(507044, "VECTOR_CORE_TRAP_READ_OVERFLOW", _OUT, CRASH, NEAREST, WRITES_BEYOND),
    _runtime(507045, "VECTOR_CORE_TRAP_WRITE_OVERFLOW", _OUT, CRASH, NEAREST, WRITES_BEYOND),
    _runtime(
        507018, "AICPU_EXCEPTION", "An AI CPU task stopped with an exception.", CRASH, NEAREST
    ),
    _runtime(
        507049, "FFTS_PLUS_EXCEPTION", "A task of a fused graph stopped with an exception.", CRASH
    ),
    _runtime(507050, "FFTS_PLUS_TRAP_EXCEPTION", "A task of a fused graph stopped itself.", CRASH),
    _runtime(
        507916,
        "CCU_EXCEPTION",
        "The collective unit (Ascend 950) stopped with an exception.",
        CRASH,
    ),
    _runtime(
        507011, "MODEL_EXECUTE", "A captured or loaded graph failed while it ran.", ECHO, NEAREST
    ),
    _runtime(507013, "SYS_DMA", "A copy by system DMA failed.", CRASH),
    _runtime(507010, "LOST_HEARTBEAT", "The task scheduler of the device does not answer.", OTHER),
    _runtime(507022, "IPC_ERROR", "Memory or events shared between processes failed.", OTHER),
    _runtime(507027, "KERNEL_LOOKUP", "A kernel's binary was not found.", OTHER),
    _runtime(507053, "DEVICE_MEM_ERROR", "The device reports a memory error.", OTHER),
    _runtime(
        507054,
        "HBM_MULTI_BIT_ECC_ERROR",
        "A memory fault of the device (ECC).",
        OTHER,
        "The device needs service: npu-smi info -t ecc.",
    ),
    _runtime(507055, "SUSPECT_DEVICE_MEM_ERROR", "The device's memory may have failed.", OTHER),
    _runtime(
        507056,
        "LINK_ERROR",
        "The link between two devices broke.",
        LINK,
        "Try again; then check the link: hccn_tool -i N -link -g.",
    ),
    _runtime(507904, "COMM_OP_RETRY_FAIL", "HCCL repeated a collective and failed again.", LINK),
    _runtime(507914, "L3_PORT_ERROR", "A port of the switch between super nodes failed.", LINK),
    _runtime(507901, "SOCKET_CLOSE", "The connection to the device closed.", OTHER),
    _runtime(507899, "DRV_INTERNAL_ERROR", "The driver failed.", OTHER),
    _runtime(507008, "SOC_VERSION", "The binary was built for another chip.", OTHER),
    _runtime(507000, "INTERNAL_ERROR", "The runtime failed inside.", ECHO),
    _runtime(107022, "DEVICE_TASK_ABORT", "Tasks of the device are being aborted.", ECHO),
    _runtime(107023, "STREAM_ABORT", "The stream is being aborted.", ECHO),
    _runtime(107003, "STREAM_CONTEXT", "The stream belongs to another context.", OTHER),
    _runtime(107002, "CONTEXT_NULL", "No device context: set the device first.", OTHER),
    _runtime(107000, "PARAM_INVALID", "The runtime refused a parameter.", OTHER),
    _runtime(
        207001,
        "MEMORY_ALLOCATION",
        "Out of device memory.",
        MEMORY,
        "Every HCCL group takes twice HCCL_BUFFSIZE.",
        ("memory",),
    ),
    _runtime(207018, "DEVICE_OOM", "Out of device memory.", MEMORY, "", ("memory",)),
    _runtime(207005, "RESOURCE_ALLOC_FAIL", "The runtime ran out of a resource.", MEMORY),
    _runtime(207008, "NO_STREAM_RESOURCE", "No stream is left.", MEMORY, "Capture fewer graphs."),
    _runtime(207009, "NO_NOTIFY_RESOURCE", "No notify is left.", MEMORY, "", ("queue pairs",)),
    _runtime(207000, "FEATURE_NOT_SUPPORT", "The runtime or driver does not support this.", OTHER),
)


# Classes of the runtime that occur beside collectives.
RUNTIME_CLASSES: tuple[Entry, ...] = (
    Entry("EE1001", "The runtime refused an argument.", OTHER, "", "", (), ERROR_CODES),
    Entry(
        "EE1002",
        "Synchronising a stream took too long.",
        HANG,
        "",
        "Check the limit and the network.",
        ("dead peer", "disagreement", "aiv set"),
        ERROR_CODES,
    ),
    Entry("EE1013", "Out of host memory.", MEMORY, "", "", (), ERROR_CODES),
    Entry(
        "EE1015",
        "The driver is too old for this.",
        OTHER,
        "",
        "Upgrade the driver.",
        (),
        ERROR_CODES,
    ),
    Entry(
        "EE2002",
        "An environment variable of the runtime has a value that it refuses.",
        OTHER,
        "",
        "",
        (),
        ERROR_CODES,
    ),
    Entry("EE9999", "The runtime failed; the line says how.", OTHER, "", NEAREST, (), ERROR_CODES),
    Entry(
        "EJ0001",
        "The network process of the device did not start: an earlier job may still end.",
        OTHER,
        "",
        "Wait ten seconds after the last job and try again.",
        (),
        ERROR_CODES,
    ),
    Entry(
        "EJ0002", "A network port is down.", LINK, "", "hccn_tool -i N -link -g.", (), ERROR_CODES
    ),
    Entry("EJ0003", "A network port could not be bound.", OTHER, "", "", (), ERROR_CODES),
    Entry("EL0004", "Out of device memory.", MEMORY, "", "", ("memory",), ERROR_CODES),
)
