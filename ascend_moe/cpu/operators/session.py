"""One call on one rank: its checked arguments, and what all ranks decided about it.

Everything that can refuse a call happens here, so that a refusal is told to the peers exactly once and in one way.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ascend_moe.contract.agreement import statement
from ascend_moe.contract.buffsize import CPU
from ascend_moe.contract.check import constraint_error
from ascend_moe.contract.errors import ConstraintError, ConstraintWarning, PeerError, Violation
from ascend_moe.contract.executable import CHECK_VARIABLE, check_level, executor_violations
from ascend_moe.contract.handle import handle_violations
from ascend_moe.contract.layers import SEEN
from ascend_moe.contract.limits import BETWEEN
from ascend_moe.contract.path import path_of
from ascend_moe.contract.resolve import Resolved, resolve_contract, resolve_product
from ascend_moe.contract.servers import servers_of
from ascend_moe.contract.shapes import TensorSpec, World, specs_of_call
from ascend_moe.contract.signature import with_defaults
from ascend_moe.cpu import transport
from ascend_moe.cpu.distributed.exchange import Exchange
from ascend_moe.cpu.distributed.group import call_on, membership_violations, resolve
from ascend_moe.cpu.distributed.peers import state_of
from ascend_moe.cpu.distributed.steps import FarCombine, FarDispatch
from ascend_moe.cpu.distributed.turns import ORDERED, THREADS_VARIABLE
from ascend_moe.cpu.operators.elastic import Left, elastic_violations
from ascend_moe.cpu.operators.statements import found_in
from ascend_moe.cpu.survivors.shrinking import Served
from ascend_moe.cpu.windows.exchange import WindowExchange
from ascend_moe.cpu.windows.repeated.call import FastCall
from ascend_moe.cpu.windows.repeated.combine import Combine
from ascend_moe.cpu.windows.repeated.dispatch import Dispatch
from ascend_moe.cpu.windows.repeated.prepared import Checked
from ascend_moe.patience import timeout_seconds


class Session:
    """A call that passed this rank's own checks, and its lines to the peers.

    Raises ConstraintError when the call is illegal (after telling the peers) and PeerError when the group is broken.
    """

    def __init__(self, op: str, arguments: Mapping[str, Any], left: Left | None = None) -> None:
        """left: where the arguments come from, if they are those of a group of survivors."""
        self._op, self._left = op, left
        call = _plain_call(op, arguments)
        self._given = call if left is None else _plain_call(op, left.given)
        """What the caller passed: judged by the rules, which know nothing of survivors."""
        self._product: Resolved = resolve_product()
        self._contract: Resolved = resolve_contract(op, self._given)
        self.product = self._product.name
        self.world = World.of_call(call)
        where = {"product": self.product, "contract": self._contract.name}
        self._path = path_of(self._given, **where)
        self.servers = servers_of(self._path, **where)
        self.call = call if self.servers is None else self.servers.heeded(call)
        self._performance_info = arguments.get("performance_info")
        self._numbers = list(statement(op, self.call, path=self._path).values())

        with_tp = self.call["tp_world_size"] == 2
        timeout_seconds(), transport.preference()  # before anything is said to the peers
        groups = {"ep": resolve(self.call["group_ep"])}
        if with_tp:
            groups["tp"] = resolve(self.call["group_tp"])
        self._groups = groups
        found = self._local_violations(groups) + self._thread_violations()
        lines = {
            name: transport.line(
                group, what=call_on(group, op), measured=self._performance_info is not None
            )
            for name, group in groups.items()
            if group is not None
        }
        if any(violation.level == "error" for violation in found):
            self._refuse(found, lines)
        for violation in [*found, *SEEN.warnings(self._given)]:
            warnings.warn(str(violation), ConstraintWarning, stacklevel=4)
        if left is None and groups["ep"] is not None:
            served = Served(self.world, self.product, self._path, with_tp)
            state_of(groups["ep"]).served = served
        self.ep = lines["ep"]
        self.tp = lines.get("tp")

    def agree(self, leaving: Sequence[int]) -> list[int]:
        """Decides with all EP ranks whether the call takes place; returns how many rows each of them sends here.

        Raises ConstraintError on every rank when one of them refuses or when they disagree.
        """
        statements = self.ep.statements(self._numbers, leaving)
        self.require(found_in(statements, "ep_rank_id", names=self._names))
        self._choose_transport("ep")
        return [one.rows for one in statements]

    def agree_with_tp_peer(self, rows: int) -> int:
        """The same for the two ranks of a TP pair; returns how many own rows the peer has."""
        assert self.tp is not None
        statements = self.tp.statements(self._numbers, [rows, rows])
        self.require(found_in(statements, "tp_rank_id"))
        self._choose_transport("tp")
        peer_rows = statements[1 - int(self.call["tp_rank_id"])].rows
        self.require(self._tp_count_violations(peer_rows))
        return peer_rows

    def _choose_transport(self, name: str) -> None:
        """When the statements of the group's first call have shown that all ranks take part."""
        group = self._groups[name]
        assert group is not None
        transport.choose(group, what=call_on(group, self._op))

    def fast_call(self, call: Mapping[str, Any]) -> FastCall | None:
        """This kind of call with its own steps in shared memory; None: it takes the steps that all modes share."""
        group = self._groups["ep"]
        assert group is not None
        windows, far = state_of(group).windows, state_of(group).far
        if (windows or far) is None or self.tp is not None or self.servers is not None:
            return None
        if self._op == "combine" and (self.product == "A2" or call["comm_quant_mode"]):
            return None
        known = Checked(
            call,
            self.world,
            self._product,
            self._contract,
            self._numbers,
            call_on(group, self._op),
            self.specs,
        )
        if windows is not None:
            return Dispatch(windows, known) if self._op == "dispatch" else Combine(windows, known)
        return FarDispatch(far, known) if self._op == "dispatch" else FarCombine(far, known)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Of the outputs."""
        return specs_of_call(self._op, self._given)

    @property
    def _names(self) -> Sequence[int]:
        group = self._groups["ep"]
        return () if group is None else state_of(group).names

    @property
    def may_be_remembered(self) -> bool:
        """Whether its own steps check all that can be wrong with the values of such a call.

        Between the contracts the order of a 2-D mask is a warning, which only the rule table knows.
        """
        mask = self.call["x_active_mask"]
        if self.call["elastic_info"] is not None:  # its words may change
            return False
        return self._contract.name != BETWEEN or mask is None or mask.dim() == 1

    def to_tp_peer(self, outgoing: Tensor, leaving: int, arriving: int) -> Tensor:
        """Swaps rows with the TP peer."""
        assert self.tp is not None
        here = self.call["tp_rank_id"]
        return self.tp.rows(outgoing, _only(1 - here, leaving), _only(1 - here, arriving))

    def finish(self) -> None:
        """Adds to ``performance_info`` how many microseconds this rank waited for each rank.

        The caller's tensor changes in place although the schema does not say so, as in torch_npu. The schema must stay
        the stock one, so a graph compiler does not know it either: give it a graph input, not an intermediate.
        """
        if self._performance_info is not None:
            self._performance_info += torch.tensor(self.ep.waited)

    def require(self, found: list[Violation]) -> None:
        """Raises ConstraintError when anything was found."""
        if found:
            raise self._error(found)

    @contextmanager
    def failures_reach_the_tp_peer(self) -> Iterator[None]:
        """A rank whose EP exchange fails tells its TP peer, which would wait for it otherwise."""
        try:
            yield
        except (ConstraintError, PeerError) as error:
            if self.tp is not None and self._op == "dispatch":
                self.tp.refuse(self._numbers, _reason(error))
            raise

    def _local_violations(self, groups: Mapping[str, dist.ProcessGroup | None]) -> list[Violation]:
        call, given = self.call, self._given
        found = executor_violations(
            self._op,
            given,
            product=self.product,
            contract=self._contract.name,
            safety=check_level() == "off",
        )
        if self._op == "combine" and not any(violation.level == "error" for violation in found):
            found += handle_violations(self.world, call, product=self.product, path=self._path)
        found += elastic_violations(given, self._left)
        members = groups if self._left is None else {"ep": self._left.whole}
        for plane, group in members.items():
            found += membership_violations(plane, given, group)
        return found

    def _thread_violations(self) -> list[Violation]:
        """All ranks must make their calls in one order, which threads do not have by themselves."""
        group = self._groups["ep"]
        turn = None if group is None else state_of(group).turn
        if turn is None or turn.thread in (0, get_ident()):
            return []
        wants_errors = os.environ.get(CHECK_VARIABLE) == "full"
        if os.environ.get(THREADS_VARIABLE) == ORDERED:
            turn.thread = 0
            return []
        if not wants_errors:
            turn.thread = 0  # said once
        message = (
            "a second thread calls on this group: the order of calls must be the same on all ranks, which no lock can "
            f"give; one thread per group, or {THREADS_VARIABLE}={ORDERED} where the threads order their calls"
        )
        level = "error" if wants_errors else "warning"
        return [Violation("X-40", level, "group_ep", message, "two threads", "one")]

    def _refuse(
        self, found: list[Violation], lines: Mapping[str, Exchange | WindowExchange]
    ) -> None:
        """Tells the peers why, and raises; what the peers say meanwhile completes the error."""
        reason = str(next(violation for violation in found if violation.level == "error"))
        for name, line in lines.items():
            statements = None
            with suppress(PeerError):  # what is wrong here counts more than who is gone
                statements = line.refuse(self._numbers, reason)
            if statements and name == "ep":
                known = {(violation.rule, violation.param) for violation in found}
                found += [
                    violation
                    for violation in found_in(
                        statements, "ep_rank_id", refusals=False, names=self._names
                    )
                    if (violation.rule, violation.param) not in known
                ]
        raise self._error(found)

    def _tp_count_violations(self, peer_rows: int) -> list[Violation]:
        given = self.call.get("tp_send_counts")
        if given is None or int(given[1 - self.call["tp_rank_id"]]) == peer_rows:
            return []
        value = int(given[1 - self.call["tp_rank_id"]])
        message = f"says that the TP peer has {value} rows, the peer has {peer_rows}"
        return [Violation("E-08", "error", "tp_send_counts", message, value, peer_rows)]

    def _error(self, found: list[Violation]) -> ConstraintError:
        return constraint_error(
            self._op,
            self._given,
            found,
            self._product,
            self._contract,
            values=True,
            implementation=CPU,
        )


def _plain_call(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in with_defaults(op, arguments).items()}


def _plain(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value


def _only(rank: int, count: int) -> list[int]:
    counts = [0, 0]
    counts[rank] = count
    return counts


def _reason(error: Exception) -> str:
    if isinstance(error, ConstraintError):
        return str(error.violations[0])
    return f"E-08 error group_ep: {error}"
