"""X-39 and E-01: does the call fit into the HCCL buffer, and does HCCL read its size as meant?"""

from __future__ import annotations

from ascend_moe.contract.buffsize import MB, OWN, Traffic, Window, tp_window
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import HIERARCHY, WINDOW_MB_MIN
from ascend_moe.contract.rules.rule import Breach, Finding
from ascend_moe.contract.window import VARIABLE, Configured, read_hccl_buffsize


def configured_buffer(call: Call) -> Configured:
    """The communicator's own size where the group has one, else the environment."""
    if call.window_mb is not None:
        return Configured(call.window_mb, "group")
    return read_hccl_buffsize(call.env)


def call_traffic(call: Call) -> Traffic | None:
    """The sizes of a call, or None if it is too broken to have them."""
    max_bs, hidden, topk, local = call.max_batch, call.hidden, call.topk, call.local_experts
    if max_bs is None or hidden is None or topk is None or local is None:
        return None
    return Traffic(
        max_bs,
        hidden,
        topk,
        call.ep_world_size,
        call.moe_expert_num,
        local,
        call.shared_experts,
        call.packed,
    )


def window_breach(call: Call) -> Finding:
    """X-39."""
    traffic = call_traffic(call)
    if traffic is None:
        return None
    window = Window(call.product, call.contract, call.path, call.op, call.implementation)
    configured = configured_buffer(call)
    if configured.refused:
        return None  # E-01 says it: there is no buffer to compare with
    found: list[Breach] = []
    # On A3 our library sees both buffers that HCCL makes for a group; where it does not (CANN 8.x), it says so itself.
    # In hierarchy a card writes into one and reads from the other, as on A2.
    both = call.implementation == OWN and call.product == "A3" and call.path != HIERARCHY
    buffers = 2 if both else 1
    if window.formula(traffic).bytes > buffers * configured.mb * MB:
        found.append(_too_small(window, traffic, configured, buffers))
    # Our kernels send TP rows through short rings, which fit into any buffer.
    tp = call.tp_world_size == 2 and 2 in call.limits.tp_sizes and call.implementation != OWN
    if tp and call.rows is not None:
        needed = tp_window(call.rows, traffic.hidden)
        if needed.bytes > configured.mb * MB:
            mb = window.megabytes(needed.bytes)
            found.append(
                Breach(
                    configured.mb,
                    mb,
                    message=f"HCCL_BUFFSIZE is too SMALL for the TP group: {configured.mb} MB, "
                    f"NEEDED_HCCL_BUFFSIZE = {mb} MB ({needed})",
                )
            )
    return found or None


def _too_small(window: Window, traffic: Traffic, configured: Configured, buffers: int) -> Breach:
    required = window.required(traffic)
    needed_mb = window.megabytes(-(-required.bytes // buffers))
    fits = window.largest_max_bs(traffic, buffers * configured.mb)
    if configured.source == "group":
        remedy = "give this group a larger hccl_buffer_size, on every rank"
    else:
        remedy = f"on every rank: export HCCL_BUFFSIZE={needed_mb}"
    return Breach(
        configured.mb,
        needed_mb,
        level="error" if window.product == "A3" else "warning",
        message=f"HCCL_BUFFSIZE is too SMALL: {configured.mb} MB ({configured.source}), "
        f"NEEDED_HCCL_BUFFSIZE = {needed_mb} MB ({required.algorithm}: {required.formula}); "
        f"largest max_bs that fits: {fits}; {remedy}",
    )


def window_setting(call: Call) -> Finding:
    """E-01: what HCCL makes of the variable."""
    configured = configured_buffer(call)
    breach = setting_breach(configured, call.env.get(VARIABLE))
    if breach is None and call.product == "A3" and configured.mb < WINDOW_MB_MIN:
        return Breach(configured.mb, f"at least {WINDOW_MB_MIN}")
    return breach


def setting_breach(configured: Configured, text: object) -> Breach | None:
    """A text that HCCL refuses is an error, a number that cannot be meant a warning."""
    if configured.refused:
        return Breach(
            text, "a plain number of MB", message=f"{configured.refused}; needed: {{limit}}"
        )
    if configured.question:
        return Breach(text, "a number of MB", message=f"{configured.question}?", level="warning")
    return None
