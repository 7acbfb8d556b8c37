"""The two operators as functions, and putting them in the place of torch_npu's.

Importing this module registers the CPU kernels; that is its one effect. The functions check a call on device or meta
tensors and hand it to the stock operator. On CPU tensors the kernel behind the operator does all of it, so that
``torch.ops.npu`` is as safe and a refusal reaches the peers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ascend_moe.bootstrap import import_torch_npu
from ascend_moe.contract.signature import CANN_8_2, PARAMETERS, by_name
from ascend_moe.cpu.operators import kernels
from ascend_moe.cpu.operators.refusals import refuse_types, schema_violations
from ascend_moe.cpu.operators.registration import register
from ascend_moe.cpu.windows.repeated.door import again
from ascend_moe.cpu.windows.repeated.eager import are_plain, nobody_listens
from ascend_moe.gate import require_legal
from ascend_moe.opening import open_once
from ascend_moe.ranks import require_legal_on_all_ranks
from ascend_moe.traced import check_while_traced

__all__ = [
    "install",
    "npu_moe_distribute_combine_v2",
    "npu_moe_distribute_dispatch_v2",
    "register",
    "uninstall",
]

_NAMES = ("npu_moe_distribute_dispatch_v2", "npu_moe_distribute_combine_v2")
_stock: dict[str, Any] = {}


def npu_moe_distribute_dispatch_v2(
    x: Tensor,
    expert_ids: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    scales: Tensor | None = None,
    x_active_mask: Tensor | None = None,
    expert_scales: Tensor | None = None,
    elastic_info: Tensor | None = None,
    performance_info: Tensor | None = None,
    group_tp: str = "",
    tp_world_size: int = 0,
    tp_rank_id: int = 0,
    expert_shard_type: int = 0,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    quant_mode: int = 0,
    global_bs: int = 0,
    expert_token_nums_type: int = 1,
    comm_alg: str = "",
    zero_expert_num: int = 0,
    copy_expert_num: int = 0,
    const_expert_num: int = 0,
    y_dtype: int | None = None,
    x_dtype: int | None = None,
    scales_dtype: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sends each token to the ranks of its K experts (EP), as ``torch_npu.npu_moe_distribute_dispatch_v2``.

    All ranks of the group make the call. Symbols: BS tokens of H elements on this rank, K experts each; A is the
    number of rows a rank must be ready for, ``max_bs * ep_world_size * min(local experts, K)`` on a MoE rank and
    ``max_bs * ceil(ep_world_size / replicas)`` on a shared-expert rank.

    Args:
        x: (BS, H) bf16 or fp16, the tokens; on A2 from CANN 9.1 on also int32, eight int4 in a word.
        expert_ids: (BS, K) int32, distinct per token; only active tokens are looked at.
        group_ep: name of the EP group, see `hccl_comm_name`.
        ep_world_size: ranks of the EP group.
        ep_rank_id: this rank's index in it.
        moe_expert_num: MoE experts of all ranks; a multiple of the ranks that hold them.
        scales: (experts, H) fp32 smooth factors for ``quant_mode`` 2; shared experts first, then MoE experts. With
            int32 x: (BS,) fp32, the scale of each token, which travels with its rows.
        x_active_mask: (BS,) or (BS, K) bool; inactive tokens are not sent. A 1-D mask has its true entries first.
        expert_scales: (BS, K) fp32 weights; returned per row in ``expand_scales``. Hierarchy needs them.
        elastic_info: int32 (4 + 2 * ep_world_size,), what `ascend_moe.shrink` returned: some ranks are gone.
        performance_info: int64 (ep_world_size,); the microseconds this rank waits for each rank are added, in place.
            On an A3 NPU the larger of old and new stays instead, whosever kernels run.
        group_tp: name of the TP group, for ``tp_world_size`` 2.
        tp_world_size: 0 or 1 (no TP), or 2: the two ranks of a TP pair hold the rows of both.
        tp_rank_id: this rank's index in the TP group.
        expert_shard_type: 0, shared-expert ranks first.
        shared_expert_num: shared experts, 0 to 4; the default (1 with 0 ranks) means none.
        shared_expert_rank_num: ranks that hold shared experts; a multiple of their number.
        quant_mode: 0 none, 2 dynamic int8 per row.
        global_bs: 0, or max BS over the ranks * ``ep_world_size``; needed when BS differs between ranks.
        expert_token_nums_type: 1 rows per local expert, 0 running total.
        comm_alg: "" or the name of an algorithm. On A2 "" with ``HCCL_INTRA_PCIE_ENABLE=1`` and
            ``HCCL_INTRA_ROCE_ENABLE=0`` is hierarchy.
        zero_expert_num: experts whose output is zero; their ids follow the MoE experts'.
        copy_expert_num: experts whose output is their input; ids follow.
        const_expert_num: experts that blend their input with a constant; ids follow.
        y_dtype: Ascend 950 only, None.
        x_dtype: Ascend 950 only, None.
        scales_dtype: Ascend 950 only, None.

    Returns:
        expand_x: (A, H), twice the rows with TP; int8 with ``quant_mode`` 2, else as x. Rows by (local expert,
            source rank, token); rows beyond the received count are unspecified.
        dynamic_scales: fp32, one per row of expand_x; meaningful with ``quant_mode`` 2 and int32 x.
        assist_info_for_combine: int32, for combine only.
        expert_token_nums: int64 (local experts,).
        ep_recv_counts: int32, prefix sums of the rows per (local expert, source rank); for combine only.
        tp_recv_counts: int32 (tp_world_size,).
        expand_scales: fp32 (A,), or (0,) without ``expert_scales``.

    Raises:
        ConstraintError: the call, or the ranks together, break a rule; docs/constraints.md lists them with sources.
        RuntimeError: a peer died or did not call within ``ASCEND_MOE_TIMEOUT_S`` seconds; the message names it.

    Source: op-plugin ``docs/context/torch_npu-npu_moe_distribute_dispatch_v2.md`` (`d1c6186d`, `517f2e7d`).
    """
    outputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _run(
        "dispatch",
        (x, expert_ids, scales, x_active_mask, expert_scales, elastic_info, performance_info),
        (
            group_ep,
            ep_world_size,
            ep_rank_id,
            moe_expert_num,
            group_tp,
            tp_world_size,
            tp_rank_id,
            expert_shard_type,
            shared_expert_num,
            shared_expert_rank_num,
            quant_mode,
            global_bs,
            expert_token_nums_type,
            comm_alg,
            zero_expert_num,
            copy_expert_num,
            const_expert_num,
            y_dtype,
            x_dtype,
            scales_dtype,
        ),
    )
    return outputs


def npu_moe_distribute_combine_v2(
    expand_x: Tensor,
    expert_ids: Tensor,
    assist_info_for_combine: Tensor,
    ep_send_counts: Tensor,
    expert_scales: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    tp_send_counts: Tensor | None = None,
    x_active_mask: Tensor | None = None,
    expand_scales: Tensor | None = None,
    shared_expert_x: Tensor | None = None,
    elastic_info: Tensor | None = None,
    ori_x: Tensor | None = None,
    const_expert_alpha_1: Tensor | None = None,
    const_expert_alpha_2: Tensor | None = None,
    const_expert_v: Tensor | None = None,
    performance_info: Tensor | None = None,
    group_tp: str = "",
    tp_world_size: int = 0,
    tp_rank_id: int = 0,
    expert_shard_type: int = 0,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    global_bs: int = 0,
    comm_quant_mode: int = 0,
    comm_alg: str = "",
    zero_expert_num: int = 0,
    copy_expert_num: int = 0,
    const_expert_num: int = 0,
) -> Tensor:
    """Brings expert outputs home and sums them by weight, as ``torch_npu.npu_moe_distribute_combine_v2``.

    All ranks of the group make the call, with the attributes and the handle of the dispatch it belongs to. Symbols as
    in `npu_moe_distribute_dispatch_v2`.

    Args:
        expand_x: (A, H) bf16 or fp16 (2A rows with TP), the expert outputs in the row order of dispatch.
        expert_ids: (BS, K) int32, as given to dispatch.
        assist_info_for_combine: int32, from dispatch.
        ep_send_counts: int32, dispatch's ``ep_recv_counts``.
        expert_scales: (BS, K) fp32, the weights on full mesh.
        group_ep: name of the EP group.
        ep_world_size: ranks of the EP group.
        ep_rank_id: this rank's index in it.
        moe_expert_num: MoE experts of all ranks.
        tp_send_counts: int32 (2,), dispatch's ``tp_recv_counts``; only read with TP.
        x_active_mask: as given to dispatch; rows of inactive tokens are zero.
        expand_scales: from dispatch; the weights in hierarchy, not read on full mesh.
        shared_expert_x: (BS, H) or (a, b, H) with a * b = BS, as expand_x; added once per token, unweighted, last.
        elastic_info: int32 (4 + 2 * ep_world_size,), what `ascend_moe.shrink` returned: some ranks are gone.
        ori_x: (BS, H), the tokens; needed with copy or const experts.
        const_expert_alpha_1: (const experts, H).
        const_expert_alpha_2: (const experts, H).
        const_expert_v: (const experts, H), the constants.
        performance_info: int64 (ep_world_size,); the microseconds this rank waits for each rank are added, in place.
            On an A3 NPU the larger of old and new stays instead, whosever kernels run.
        group_tp: name of the TP group, for ``tp_world_size`` 2.
        tp_world_size: as in dispatch.
        tp_rank_id: as in dispatch.
        expert_shard_type: as in dispatch.
        shared_expert_num: as in dispatch.
        shared_expert_rank_num: as in dispatch.
        global_bs: as in dispatch.
        comm_quant_mode: 0 none, 2 rows (in hierarchy, sums of servers) travel as int8 with one scale per block.
        comm_alg: as in dispatch.
        zero_expert_num: as in dispatch.
        copy_expert_num: as in dispatch.
        const_expert_num: as in dispatch.

    Returns:
        (BS, H) in the dtype of expand_x: the sum over k in ascending order in fp32, each product rounded before it is
        added, rounded once at the end. In hierarchy each server adds its rows first, and the sums of the servers are
        rounded before they are added.

    Raises:
        ConstraintError: the call, its handle, or the ranks together, break a rule.
        RuntimeError: a peer died or did not call within ``ASCEND_MOE_TIMEOUT_S`` seconds; the message names it.

    Source: op-plugin ``docs/context/torch_npu-npu_moe_distribute_combine_v2.md`` (`d1c6186d`, `517f2e7d`).
    """
    output: Tensor = _run(
        "combine",
        (
            expand_x,
            expert_ids,
            assist_info_for_combine,
            ep_send_counts,
            expert_scales,
            tp_send_counts,
            x_active_mask,
            expand_scales,
            shared_expert_x,
            elastic_info,
            ori_x,
            const_expert_alpha_1,
            const_expert_alpha_2,
            const_expert_v,
            performance_info,
        ),
        (
            group_ep,
            ep_world_size,
            ep_rank_id,
            moe_expert_num,
            group_tp,
            tp_world_size,
            tp_rank_id,
            expert_shard_type,
            shared_expert_num,
            shared_expert_rank_num,
            global_bs,
            comm_quant_mode,
            comm_alg,
            zero_expert_num,
            copy_expert_num,
            const_expert_num,
        ),
    )
    return output


def install() -> None:
    """Replaces the two functions of torch_npu by the checking ones; existing callers need no change.

    Callers that look the functions up as attributes of ``torch_npu`` get ours from now on. Idempotent. A module that a
    test suite has put in the place of torch_npu gets them too, whether it had such attributes or not. Raises
    ImportError when torch_npu cannot be imported here.
    """
    if not import_torch_npu():
        raise ImportError(
            "ascend_moe.install() needs torch_npu and CANN (or the virtual NPU); without them call "
            "ascend_moe.npu_moe_distribute_dispatch_v2 and npu_moe_distribute_combine_v2 directly"
        )
    import torch_npu

    for name in _NAMES:
        if name not in _stock:
            _stock[name] = getattr(torch_npu, name, None)
            setattr(torch_npu, name, globals()[name])


def uninstall() -> None:
    """Gives torch_npu its own two functions back, if it had any. Does nothing when `install` was not called."""
    if not _stock:
        return
    import torch_npu

    for name in _NAMES:
        if (stock := _stock.pop(name)) is None:
            delattr(torch_npu, name)
        else:
            setattr(torch_npu, name, stock)


def _run(op: str, tensors: tuple[Any, ...], attributes: tuple[Any, ...]) -> Any:
    """Checks the call where the kernel behind the operator does not, and makes it."""
    if torch.compiler.is_compiling():
        check_while_traced(op, tensors, attributes)
        return _operator(op, by_name(op, tensors, attributes))
    direct = nobody_listens()
    if direct:
        outputs = again(op, tensors, attributes)
        if outputs is not None:
            return outputs
    arguments = by_name(op, tensors, attributes)
    if direct and are_plain((*tensors, *attributes)):
        return kernels.run(op, arguments)
    if direct and _is_cpu_call_of_other_types(op, tensors, arguments):
        return kernels.run(op, arguments)  # refuses it, and tells the peers
    try:
        device = arguments["expert_ids"].device.type
        if device == "npu":
            require_legal_on_all_ranks(op, arguments)
            open_once(op, arguments)
        elif device != "cpu":
            require_legal(op, arguments)
        return _operator(op, arguments)
    except (AttributeError, TypeError, RuntimeError) as error:
        refuse_types(op, arguments, error)
        raise


def _is_cpu_call_of_other_types(
    op: str, tensors: tuple[Any, ...], arguments: dict[str, Any]
) -> bool:
    elsewhere = (isinstance(one, Tensor) and one.device.type != "cpu" for one in tensors)
    return not any(elsewhere) and bool(schema_violations(op, arguments))


def _operator(op: str, arguments: dict[str, Any]) -> Any:
    operator = getattr(torch.ops.npu, f"npu_moe_distribute_{op}_v2")
    known, later = _as_old_schemas(op, arguments)
    if later and not torch.compiler.is_compiling():
        _require_parameters(operator, later)
    return operator(**known, **later)


def _as_old_schemas(op: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every torch_npu takes, and of the rest, which early releases lack, what is not at its default."""
    known, later = {}, {}
    for parameter in PARAMETERS[op]:
        value = arguments[parameter.name]
        if parameter.since == CANN_8_2:
            known[parameter.name] = value
        elif _is_set(value, parameter.default):
            later[parameter.name] = value
    return known, later


def _require_parameters(operator: Any, names: Iterable[str]) -> None:
    """Or the error would be torch's, which counts arguments and names none."""
    there = {argument.name for argument in operator.default._schema.arguments}
    for name in names:
        if name not in there:
            raise TypeError(f"{operator} of the installed torch_npu has no parameter {name!r}")


def _is_set(value: object, default: object) -> bool:
    return isinstance(value, Tensor) or value != default


register()
