"""Sizes at which CANN's own kernels lose tokens: warnings with ids S-xx.

No document names them. They were found by executing the published source of the kernels, unchanged, on a CPU over a
model of the vector core and the network card; nothing was measured on an Ascend device, and every message says so. They
concern the stock kernels alone, so they are raised only where those will run. docs/stock-defects.md is made from this
table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ascend_moe.contract.buffsize import MB, hierarchy_a3
from ascend_moe.contract.call import Call
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import BETWEEN, HIERARCHY, RANKS_PER_SERVER, RANKS_PER_SERVER_A3
from ascend_moe.contract.rules.buffer import call_traffic, configured_buffer
from ascend_moe.contract.signature import CANN_9_1

EVIDENCE = "by execution of the published source on a CPU, not measured on a device"


@dataclass(frozen=True)
class Found:
    """The size of a call that a defect needs, and what to do instead."""

    param: str
    value: object
    limit: str


@dataclass(frozen=True)
class Defect:
    """One defect of the stock kernels.

    Attributes:
        id: S-xx.
        title: where it happens.
        happens: what goes wrong, and when.
        remedy: what to do.
        versions: sources in which it was seen (ops-transformer, tags and commits), and in which not.
        check: the call's size that meets it, given the contract; None where no call shows it.
        op, product, contracts: where it is looked for, in hierarchy only.
    """

    id: str
    title: str
    happens: str
    remedy: str
    versions: str
    check: Callable[[Call, str], Found | None] | None = None
    op: str = ""
    product: str = ""
    contracts: tuple[str, ...] = ()


def _servers(call: Call) -> int:
    per_server = RANKS_PER_SERVER if call.product == "A2" else RANKS_PER_SERVER_A3
    return call.ep_world_size // per_server


def _align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _relay_slice(call: Call, contract: str) -> Found | None:
    batch, hidden, topk = call.max_batch, call.hidden, call.topk
    if call.quant_mode != 0 or batch is None or hidden is None or topk is None:
        return None
    if _servers(call) < 4:
        return None
    unit = 4096 if contract == BETWEEN else 512
    padded = _align(topk, 8)
    slice_bytes = _align(batch * (2 * hidden + 16 * padded) + 32, unit)
    if slice_bytes != (batch + 1) * (2 * hidden + 8 * padded + 64):
        return None
    return Found("x", batch, "another BS, or quant_mode 2")


def _flags_of_two_servers(least: int) -> Callable[[Call, str], Found | None]:
    def check(call: Call, contract: str) -> Found | None:
        batch = call.max_batch
        if _servers(call) != 2 or batch is None or batch < least:
            return None
        return Found("x", batch, f"BS below {least}")

    return check


def _slice_without_room(call: Call, contract: str) -> Found | None:
    """The kernel cuts the window into one slice for each (expert, source), rounded down to 512 bytes."""
    batch, hidden, topk = call.max_batch, call.hidden, call.topk
    if batch is None or hidden is None or topk is None or call.moe_expert_num < 1:
        return None
    have = configured_buffer(call).mb
    slice_bytes = (have - 404) * MB // call.moe_expert_num // 512 * 512
    token = hidden * (2 if call.quant_mode == 0 else 1)
    record = token + 2 * 4 * _align(topk, 8) + 64
    traffic = call_traffic(call)
    if traffic is None or hierarchy_a3(traffic).bytes > have * MB:
        return None  # too small for tiling too: X-39
    if slice_bytes >= batch * record:
        return None
    return Found("HCCL_BUFFSIZE", have, f"{have + 1} MB")


DEFECTS: tuple[Defect, ...] = (
    Defect(
        id="S-01",
        title="A2 hierarchy, dispatch, quant_mode 0, four servers or more",
        happens=(
            "When all BS = max_bs tokens of a rank go to the same server, the relay reads one record past the end of "
            "a slice and takes the next server's first record for a token: wrong counts, rows of zeros, writes "
            "past the outputs. It needs a slice that holds exactly BS + 1 records, "
            "Align(BS * (2H + 16 * K8) + 32) = (BS + 1) * (2H + 8 * K8 + 64) with K8 = K rounded up to 8: with K 9 to "
            "16 BS 31 at H 1024, 63 at 2048, 127 at 4096, 159 at 5120, 223 at 7168."
        ),
        remedy="Use another BS (one more or less is enough) or quant_mode 2.",
        versions=(
            "v9.1.0.pre and 3a280bcc3 (2026-07-21) align to 512; v9.0.x aligns to 4096 (H 7168: BS 191, H 5120: "
            "BS 127). Not seen in v8.5.0 and c29bc10 (2025-11) at the sizes run."
        ),
        check=_relay_slice,
        op="dispatch",
        product="A2",
        contracts=(CANN_9_1, BETWEEN),
    ),
    Defect(
        id="S-02",
        title="A3 hierarchy, combine, two servers",
        happens=(
            "End marks of one server's token flags overwrite the other's first flags from BS 273 - (cores - 2) / 2 on: "
            "250 with 48 vector cores, 254 with 40. When the second server's first sums come later than the first's "
            "last, whole rows are lost: 4096 of 8192 tokens with BS 256 and a skewed load; a balanced load was "
            "right."
        ),
        remedy="Keep BS below 250 with two servers.",
        versions="v9.0.1, v9.1.0.pre, 3a280bcc3 (2026-07-21).",
        check=_flags_of_two_servers(250),
        op="combine",
        product="A3",
        contracts=(CANN_9_1, BETWEEN),
    ),
    Defect(
        id="S-03",
        title="A2 hierarchy, combine, two servers",
        happens="The same as S-02 from BS 241 on: 256 was wrong, 240 right.",
        remedy="Keep BS below 241 with two servers.",
        versions="c29bc10 (2025-11).",
        check=_flags_of_two_servers(241),
        op="combine",
        product="A2",
        contracts=(BETWEEN,),
    ),
    Defect(
        id="S-04",
        title="A3 hierarchy, dispatch, a window without room",
        happens=(
            "The kernel cuts the window into one slice for each expert and source, rounded down to 512 bytes, so a "
            "window that just holds the sum of tiling can be too small by 64 to 384 bytes, with few tokens (BS up "
            "to 11): about one combination of sizes in a thousand at whole MB."
        ),
        remedy="Give the buffer one MB more.",
        versions="3a280bcc3 (2026-07-21), op_kernel/arch22/moe_distribute_dispatch_v2_layered.h:318 and 343.",
        check=_slice_without_room,
        op="dispatch",
        product="A3",
        contracts=(CANN_9_1, BETWEEN),
    ),
    Defect(
        id="S-05",
        title="A2 hierarchy, dispatch, beta versions of CANN 9.1",
        happens=(
            "Three reads without barriers can lose a token: 83 of 177 launches in the model, with bursts from the "
            "network card."
        ),
        remedy="Install the release: none lost at 3a280bcc3 and v9.0.1.",
        versions="v9.1.0-beta.1 and v9.1.0-beta.2.pre.",
    ),
    Defect(
        id="S-06",
        title="A2 hierarchy, combine, 24, 40, 48 or 56 ranks",
        happens=(
            "Tiling lets these sizes pass and dispatch is right, but combine reads outside its tables. With fewer "
            "than 32 + servers vector cores it hangs."
        ),
        remedy="Use 16, 32 or 64 ranks, the documented sizes: others are refused here (X-05).",
        versions="3a280bcc3 (2026-07-21).",
    ),
)
DEFECTS_BY_ID = {defect.id: defect for defect in DEFECTS}


def stock_defects(call: Call, contract: str) -> list[Violation]:
    """The defects that a call of the stock kernels meets.

    contract: also "cann-8.3", between the two, for which `call` is judged by the later one.
    """
    if call.path != HIERARCHY:
        return []
    warnings = []
    for defect in DEFECTS:
        if defect.check is None or (defect.op, defect.product) != (call.op, call.product):
            continue
        found = defect.check(call, contract) if contract in defect.contracts else None
        if found is not None:
            message = (
                f"{found.value}: CANN's own kernels can lose tokens at this size ({defect.title}; {EVIDENCE}). "
                f"{defect.remedy} See docs/stock-defects.md"
            )
            warnings.append(
                Violation(defect.id, "warning", found.param, message, found.value, found.limit)
            )
    return warnings
