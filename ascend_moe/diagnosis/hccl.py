"""What HCCL says: the results of its functions (`ret = N`) and its error classes EI0001 to EI0020."""

from __future__ import annotations

from ascend_moe.diagnosis.entry import HANG, LINK, MEMORY, OTHER, SET_UP, Entry

_TYPES = "hcomm 8958adbf03, include/hccl/hccl_types.h"
_PAGES = "hcomm 8958adbf03, docs/en/error_codes"

_SET_UP_LINKS = (
    "Links or a peer that did not come, not memory: start the ranks together and check the network."
)
_LOWER = (
    "Lower HCCL_BUFFSIZE to what `ascend-moe buffsize` says (every group takes twice that), or the "
    "memory share of the engine."
)


def _result(
    number: int,
    symbol: str,
    meaning: str,
    kind: str = OTHER,
    advice: str = "",
    causes: tuple[str, ...] = (),
) -> Entry:
    return Entry(f"ret = {number}", meaning, kind, f"HCCL_E_{symbol}", advice, causes, _TYPES)


# What `HcclAllocComResourceByTiling ... ret = N` and other functions of HCCL return.
HCCL_RESULTS: dict[int, Entry] = {
    int(entry.name.removeprefix("ret = ")): entry
    for entry in (
        _result(1, "PARA", "HCCL refused a parameter.", SET_UP),
        _result(2, "PTR", "HCCL got an empty pointer.", SET_UP),
        _result(3, "MEMORY", "HCCL met a memory error.", MEMORY, _LOWER, ("memory",)),
        _result(
            4,
            "INTERNAL",
            "HCCL failed inside; its own lines above say why (memory, queue pairs or links).",
            SET_UP,
            "Look for EI0007, 207001 or another EI class near it.",
            ("queue pairs", "memory", "set-up"),
        ),
        _result(5, "NOT_SUPPORT", "HCCL does not support this here.", SET_UP, "", ("set-up",)),
        _result(6, "NOT_FOUND", "HCCL did not find a resource.", SET_UP),
        _result(7, "UNAVAIL", "A resource of HCCL is not available.", SET_UP, "", ("queue pairs",)),
        _result(8, "SYSCALL", "A system call failed in HCCL.", SET_UP),
        _result(
            9,
            "TIMEOUT",
            "HCCL waited too long while it set up the group.",
            LINK,
            _SET_UP_LINKS,
            ("set-up",),
        ),
        _result(10, "OPEN_FILE_FAILURE", "HCCL could not open a file.", SET_UP),
        _result(11, "TCP_CONNECT", "A TCP connection failed.", LINK, _SET_UP_LINKS, ("set-up",)),
        _result(12, "ROCE_CONNECT", "A RoCE connection failed.", LINK, _SET_UP_LINKS, ("set-up",)),
        _result(13, "TCP_TRANSFER", "A TCP transfer failed.", LINK, _SET_UP_LINKS, ("set-up",)),
        _result(14, "ROCE_TRANSFER", "A RoCE transfer failed.", LINK, _SET_UP_LINKS, ("set-up",)),
        _result(
            15, "RUNTIME", "The runtime failed under HCCL.", SET_UP, "Look for a number above."
        ),
        _result(16, "DRV", "The driver failed under HCCL.", SET_UP, "", ("driver",)),
        _result(17, "PROFILING", "Profiling failed under HCCL.", OTHER),
        _result(18, "CCE", "A kernel library failed under HCCL.", OTHER),
        _result(19, "NETWORK", "The network failed.", LINK, _SET_UP_LINKS, ("set-up",)),
        _result(20, "AGAIN", "HCCL asks to try again.", OTHER),
        _result(
            21,
            "REMOTE",
            "A network card reports a failed transfer (error CQE).",
            LINK,
            "Check the link and whether the peer ended first.",
            ("set-up",),
        ),
        _result(22, "SUSPENDING", "The communicator is being suspended.", OTHER),
        _result(23, "OPRETRY_FAIL", "HCCL repeated a collective and failed again.", LINK),
        _result(24, "OOM", "Out of device memory.", MEMORY, _LOWER, ("memory",)),
        _result(1041, "IN_STATUS", "The reason is in the status of the communicator.", OTHER),
    )
}


def _class(
    number: int,
    meaning: str,
    kind: str = OTHER,
    advice: str = "",
    causes: tuple[str, ...] = (),
) -> Entry:
    return Entry(f"EI{number:04}", meaning, kind, "", advice, causes, _PAGES)


HCCL_CLASSES: tuple[Entry, ...] = (
    _class(
        1,
        "HCCL refuses the value of an environment variable, and no process group starts.",
        OTHER,
        "Set the variable that the line names to what it expects.",
    ),
    _class(
        2,
        "A collective waited for a peer's notify longer than HCCL_EXEC_TIMEOUT.",
        HANG,
        "Look on the rank that the line names, and for the earliest error of any rank.",
    ),
    _class(3, "A collective has an invalid argument.", OTHER, "Read the reason in the line."),
    _class(4, "The rank table cannot be read or does not fit.", OTHER),
    _class(5, "Ranks call a collective with different arguments.", OTHER, "Read the line."),
    _class(
        6,
        "A connection between two ranks was not set up in time.",
        LINK,
        "Start the ranks together (HCCL_CONNECT_TIMEOUT, 120 s by default), check the network.",
    ),
    _class(
        7,
        "HCCL ran out of a resource that the line names (queue pairs, notifies, memory).",
        MEMORY,
        "Fewer communicators per device; free memory.",
        ("queue pairs",),
    ),
    _class(
        8, "Ranks have different versions of HCCL or the ops package.", OTHER, "Install the same."
    ),
    _class(9, "A port could not be opened (link down?).", LINK, "hccn_tool -i N -link -g."),
    _class(
        10, "Two devices cannot reach each other's memory.", LINK, "Read the reason in the line."
    ),
    _class(
        11,
        "Out of device memory in HCCL.",
        MEMORY,
        "Every group takes twice HCCL_BUFFSIZE.",
        ("memory",),
    ),
    _class(12, "A copy between devices failed: link, dead peer or a freed buffer.", LINK),
    _class(
        13,
        "A network card reports a failed transfer (error CQE): the link, or a peer that ended first.",
        LINK,
        "Check the link between the two devices in the line and whether the peer ended first.",
    ),
    _class(14, "The rank table does not agree with the devices.", OTHER),
    _class(
        15, "Not all ranks met at the root.", LINK, "Are all ranks started? HCCL_SOCKET_IFNAME?"
    ),
    _class(16, "A setting of HCCL is invalid or differs between ranks.", OTHER, "Read the line."),
    _class(17, "The rank table lacks a setting.", OTHER),
    _class(18, "A transfer over the bus of Ascend 950 failed (error CQE).", LINK),
    _class(
        19, "A port of the host is taken.", OTHER, "HCCL_IF_BASE_PORT, or end the other process."
    ),
    _class(20, "A port of the NPU is taken.", OTHER, "HCCL_NPU_SOCKET_PORT_RANGE."),
)
