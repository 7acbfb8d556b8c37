"""The calls of all ranks as one checked world.

`normalise` fills in the defaults, refuses what the executors cannot run and makes sure that the ranks agree, so that
``dispatch`` and ``combine`` beside this file are nothing but the semantics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ascend_moe.contract.agreement import disagreements, statement
from ascend_moe.contract.buffsize import CPU
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import ConstraintError, Violation
from ascend_moe.contract.executable import executor_violations
from ascend_moe.contract.handle import handle_violations
from ascend_moe.contract.path import path_of
from ascend_moe.contract.resolve import resolve_contract, resolve_product
from ascend_moe.contract.servers import Servers, servers_of
from ascend_moe.contract.shapes import World
from ascend_moe.contract.signature import with_defaults


@dataclass(frozen=True)
class WorldCalls:
    """The normalised arguments of every rank (defaults filled in, tensors contiguous) and what they share."""

    world: World
    arguments: list[dict[str, Any]]
    tp_world_size: int
    """Ranks of a TP pair: 2, or 1 without TP. The calls are ordered ``ep_rank * tp_world_size + tp_rank``."""
    product: str
    servers: Servers | None
    """How hierarchy cuts the group; None on full mesh."""
    given: list[dict[str, Any]]
    """The arguments before they were put in new numbers by ``elastic_info``, in the order of `arguments`."""
    positions: Sequence[int]
    """For each call that was given, where it is in `arguments`."""

    @property
    def handle_is_triples(self) -> bool:
        """A3's full mesh: the receiver keeps (source rank, token, slot) of each row in ``assist_info_for_combine``."""
        return self.servers is None and self.product != "A2"


def normalise(
    op: str,
    calls: Sequence[Mapping[str, Any]],
    *,
    product: str | None,
    contract: str | None,
    check: bool,
) -> WorldCalls:
    """Checks and completes one call per rank.

    Raises ValueError when the number or the order of the calls does not fit their attributes, ConstraintError when a
    call or their combination breaks a rule.
    """
    if not calls:
        raise ValueError(f"{op}_world() needs one call per rank, got none")
    arguments = _completed(op, calls)
    first = arguments[0]
    chosen_product = resolve_product(product)
    chosen_contract = resolve_contract(op, first, contract)
    if check:
        for call in arguments:
            found = executor_violations(
                op, call, product=chosen_product.name, contract=chosen_contract.name, safety=True
            )
            errors = [violation for violation in found if violation.level == "error"]
            if errors:
                raise constraint_error(
                    op,
                    call,
                    errors,
                    chosen_product,
                    chosen_contract,
                    values=True,
                    implementation=CPU,
                )
    path = path_of(first, product=chosen_product.name, contract=chosen_contract.name)
    servers = servers_of(path, product=chosen_product.name, contract=chosen_contract.name)
    if servers is not None:
        arguments = [servers.heeded(call) for call in arguments]
    given: list[dict[str, Any]] = arguments
    positions: Sequence[int] = range(len(arguments))
    elastic = _elastic_of(op, arguments)
    if elastic is not None:
        positions = _new_ranks(op, arguments, elastic)
        given = [arguments[positions.index(new)] for new in range(elastic.ranks)]
        arguments = [elastic.reduced(call) for call in given]
        first = arguments[0]
    tp = 2 if first["tp_world_size"] == 2 else 1
    if len(calls) != first["ep_world_size"] * tp:
        raise ValueError(
            f"{op}_world() needs ep_world_size * tp = {first['ep_world_size']} * {tp} calls, got {len(calls)}"
        )
    for index, call in enumerate(arguments):
        expected = divmod(index, tp)
        if (call["ep_rank_id"], call["tp_rank_id"] if tp == 2 else 0) != expected:
            raise ValueError(
                f"calls must be ordered by (ep_rank_id, tp_rank_id): call {index} should be {expected}, "
                f"but has ep_rank_id={call['ep_rank_id']}, tp_rank_id={call['tp_rank_id']}"
            )
    if check:
        found = disagreements(
            [statement(op, call, path=path) for call in arguments],
            rank_param="ep_rank_id" if tp == 1 else None,
        )
        if found:
            raise ConstraintError(
                found, f"npu_moe_distribute_{op}_v2: the ranks do not fit together"
            )
    world = World.of_call(first)
    if check and op == "combine":
        for call in arguments:
            found = handle_violations(world, call, product=chosen_product.name, path=path)
            if found:
                raise ConstraintError(
                    found, f"npu_moe_distribute_combine_v2 on rank {call['ep_rank_id']}"
                )
    return WorldCalls(world, arguments, tp, chosen_product.name, servers, given, positions)


def _elastic_of(op: str, arguments: Sequence[Mapping[str, Any]]) -> Elastic | None:
    """Who is left of the group; None: all."""
    said = [
        None if call["elastic_info"] is None else call["elastic_info"].tolist()
        for call in arguments
    ]
    if any(words != said[0] for words in said):
        text = "ranks disagree about elastic_info; it must be the same on all ranks that are left"
        found = Violation("E-15", "error", "elastic_info", text, "differing words", "the same")
        raise ConstraintError([found], f"npu_moe_distribute_{op}_v2: the ranks do not fit together")
    return None if said[0] is None else Elastic.read(said[0], arguments[0]["ep_world_size"])


def _new_ranks(op: str, arguments: Sequence[Mapping[str, Any]], elastic: Elastic) -> list[int]:
    """The new rank of each call. Raises ValueError when they are not those of the ranks that are left, ascending."""
    ranks = [call["ep_rank_id"] for call in arguments]
    if ranks != sorted(elastic.old_ranks):
        raise ValueError(
            f"{op}_world() needs the calls of the ranks that elastic_info leaves, {sorted(elastic.old_ranks)}, "
            f"in this order, got those of {ranks}"
        )
    return [elastic.old_ranks.index(rank) for rank in ranks]


def _completed(op: str, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every parameter of every call; the reference needs no communicator, so any name will do for an absent one.

    Ranks usually give the same parameters, so names are looked at only where they change.
    """
    arguments, names, absent = [], None, {}
    for call in calls:
        if call.keys() != names:
            names = call.keys()
            every = with_defaults(op, {"group_ep": "ep", **call})
            absent = {name: value for name, value in every.items() if name not in names}
        completed = {**absent, **call}
        if completed["tp_world_size"] == 2 and not completed["group_tp"]:
            completed["group_tp"] = "tp"
        for name, value in call.items():
            if isinstance(value, Tensor) and not value.is_contiguous():
                completed[name] = value.contiguous()
        arguments.append(completed)
    return arguments
