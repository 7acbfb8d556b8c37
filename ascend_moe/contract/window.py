"""How large the EP group's HCCL buffer is, and whether a call fits into it (rules X-39 and E-01)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ascend_moe.contract.buffsize import MB, BuffSize, Traffic, largest_max_bs, tp_window, window
from ascend_moe.contract.call import Call
from ascend_moe.contract.errors import plain
from ascend_moe.contract.limits import WINDOW_MB_DEFAULT, WINDOW_MB_MIN
from ascend_moe.contract.rules.rule import Breach, Finding

VARIABLE = "HCCL_BUFFSIZE"


@dataclass(frozen=True)
class Configured:
    """The buffer size that HCCL will use. source: "group", "HCCL_BUFFSIZE", "--have" or "default"."""

    mb: int
    source: str
    surprise: str = ""


def read_hccl_buffsize(env: Mapping[str, str]) -> Configured:
    """HCCL_BUFFSIZE as HCCL reads it: the leading integer of the text, kept in 16 unsigned bits.

    Unset or not a number: the default. "512MB" is 512, 65536 is 0, -1 is 65535; whatever differs from
    what the text says is explained in `surprise`.
    """
    text = env.get(VARIABLE)
    if text is None:
        return Configured(WINDOW_MB_DEFAULT, "default")
    if re.fullmatch("[1-9][0-9]{0,4}", text) and int(text) < 2**16:
        return Configured(int(text), VARIABLE)
    number = re.match(r"\s*([+-]?[0-9]{1,11})(?![0-9])", text)
    shown = ascii(text)
    if number is None or not -(2**31) <= int(number[1]) < 2**31:
        return Configured(
            WINDOW_MB_DEFAULT,
            VARIABLE,
            f"{shown} is not a number: HCCL uses {WINDOW_MB_DEFAULT} MB",
        )
    mb = int(number[1]) % 2**16
    surprise = "" if shown == repr(str(mb)) and mb else f"HCCL reads {shown} as {mb} MB"
    return Configured(mb, VARIABLE, surprise)


def configured_window(call: Call) -> Configured:
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
        max_bs=max_bs,
        hidden=hidden,
        topk=topk,
        ep=call.ep_world_size,
        moe_experts=call.moe_expert_num,
        local_experts=local,
        shared_experts=call.shared_experts,
        packed=call.packed,
    )


def window_breach(call: Call) -> Finding:
    traffic = call_traffic(call)
    if traffic is None:
        return None
    required = window(
        traffic, product=call.product, contract=call.contract, path=call.path, op=call.op
    )
    configured = configured_window(call)
    found: list[Breach] = []
    if required.bytes > configured.mb * MB:
        found.append(_too_small(call, traffic, required, configured))
    if call.tp_world_size == 2 and 2 in call.limits.tp_sizes and call.rows is not None:
        size, formula = tp_window(call.rows, traffic.hidden)
        if size > configured.mb * MB:
            needed = -(-size // MB)
            found.append(
                Breach(
                    configured.mb,
                    needed,
                    message=f"HCCL_BUFFSIZE is too SMALL for the TP group: {configured.mb} MB, "
                    f"NEEDED_HCCL_BUFFSIZE = {needed} MB ({formula} = {size} bytes)",
                )
            )
    return found or None


def _too_small(call: Call, traffic: Traffic, required: BuffSize, configured: Configured) -> Breach:
    fits = largest_max_bs(
        traffic,
        configured.mb,
        product=call.product,
        contract=call.contract,
        path=call.path,
        op=call.op,
    )
    remedy = (
        "raise the buffer of this group"
        if configured.source == "group"
        else f"on every rank: export HCCL_BUFFSIZE={required.mb}"
    )
    return Breach(
        configured.mb,
        required.mb,
        level="error" if call.product == "A3" else "warning",
        message=f"HCCL_BUFFSIZE is too SMALL: {configured.mb} MB (from {configured.source}), "
        f"NEEDED_HCCL_BUFFSIZE = {required.mb} MB ({required.formula}, {required.algorithm}); "
        f"largest max_bs that fits: {fits}; {remedy}",
    )


def window_setting(call: Call) -> Finding:
    """E-01: what HCCL makes of the variable."""
    configured = configured_window(call)
    if configured.surprise:
        return Breach(
            plain(call.env.get(VARIABLE, "")),
            "a decimal number of MB below 65536",
            message=f"{configured.surprise}; needed: {{limit}}",
            level="warning",
        )
    if call.product == "A3" and configured.mb < WINDOW_MB_MIN:
        return Breach(configured.mb, f"at least {WINDOW_MB_MIN}")
    return None
