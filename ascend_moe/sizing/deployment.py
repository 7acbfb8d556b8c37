"""A deployment as the buffer checker sees it: sizes without tensors, and what they require.

Python's and the CLI's entry to contract/buffsize.py. Rules that make a size meaningless are refused here, by
the same records as in a call: described.py makes the deployment one dispatch call and gives it to the rule table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ascend_moe.contract.buffsize import MB, OWN, STOCK, BuffSize, Traffic, Window
from ascend_moe.contract.errors import ConstraintError, Violation
from ascend_moe.contract.resolve import Resolved
from ascend_moe.contract.rules.buffer import call_traffic
from ascend_moe.sizing.described import Described, judged_by

# Without these no size exists; every other broken rule is only mentioned.
SIZE_RULES = frozenset({"X-10", "X-17", "X-18", "X-19", "X-20", "X-21", "X-29"})


@dataclass(frozen=True)
class Deployment:
    """Sizes of one EP group, with product, contract and path decided."""

    product: Resolved
    contract: Resolved
    path: str
    op: str
    traffic: Traffic
    literal_shared_experts: int
    implementation: str
    refused: tuple[Violation, ...]  # rules of the contract that a real call of these sizes breaks

    @classmethod
    def of(
        cls,
        *,
        product: str | None,
        max_bs: int,
        hidden: int,
        topk: int,
        ep_world_size: int,
        moe_expert_num: int,
        env: Mapping[str, str],
        shared_expert_num: int = 1,
        shared_expert_rank_num: int = 0,
        op: str = "both",
        comm_alg: str = "",
        contract: str | None = None,
        implementation: str = STOCK,
    ) -> Deployment:
        """Raises ValueError for an unknown name, ConstraintError where no size can be computed."""
        described = Described.of(
            product=product,
            max_bs=max_bs,
            hidden=hidden,
            topk=topk,
            ep_world_size=ep_world_size,
            moe_expert_num=moe_expert_num,
            env=env,
            shared_expert_num=shared_expert_num,
            shared_expert_rank_num=shared_expert_rank_num,
            op=op,
            comm_alg=comm_alg,
            contract=contract,
            implementation=implementation,
        )
        return cls.judged(described, described.broken() + described.defects())

    @classmethod
    def judged(cls, described: Described, broken: Sequence[Violation]) -> Deployment:
        """The deployment of a call that breaks these rules. Raises as `of`."""
        call = described.call
        fatal = [violation for violation in broken if violation.rule in SIZE_RULES]
        traffic = call_traffic(call)
        if fatal or traffic is None:
            header = (
                f"required_hccl_buffsize has no size under contract {described.contract.name} "
                f"({described.contract.how}) on product {described.product.name} ({described.product.how})"
            )
            raise ConstraintError(fatal or broken, header)
        return cls(
            product=described.product,
            contract=described.contract,
            path=call.path,
            op=described.op,
            traffic=traffic,
            literal_shared_experts=call.shared_expert_num,
            implementation=described.implementation,
            refused=tuple(broken),
        )

    @property
    def window(self) -> Window:
        """Which window is asked about."""
        return Window(
            self.product.name,
            judged_by(self.contract.name),
            self.path,
            self.op,
            self.implementation,
        )

    @property
    def required(self) -> BuffSize:
        """The requirement, with the literal reading of the documents beside it where it differs."""
        effective = self.window.required(self.traffic)
        literal = self.window.required(
            self.traffic._replace(shared_experts=self.literal_shared_experts)
        )
        if self.implementation == OWN or literal.mb == effective.mb:
            return effective
        return replace(effective, literal_mb=literal.mb)

    def fits(self, available_mb: int) -> bool:
        """Whether a buffer of that size is enough."""
        return self.required.bytes <= available_mb * MB and available_mb >= self.window.megabytes(1)

    def largest_max_bs(self, available_mb: int) -> int:
        """The largest max_bs that fits; 0 if none does."""
        return self.window.largest_max_bs(self.traffic, available_mb)


def required_hccl_buffsize(
    *,
    product: str,
    max_bs: int,
    hidden: int,
    topk: int,
    ep_world_size: int,
    moe_expert_num: int,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    op: str = "both",
    comm_alg: str = "",
    contract: str | None = None,
    implementation: str = STOCK,
) -> BuffSize:
    """The HCCL_BUFFSIZE that a deployment needs, computed before anything runs.

    Args:
        product: "A2" or "A3".
        max_bs: largest number of tokens of any rank in one call.
        hidden: H, in elements of two bytes.
        topk: K.
        ep_world_size: ranks of the EP group.
        moe_expert_num: MoE experts of all ranks together.
        shared_expert_num: as for the operators.
        shared_expert_rank_num: as for the operators.
        op: "dispatch", "combine" or "both".
        comm_alg: as for the operators. On A2 an empty one lets HCCL_INTRA_PCIE_ENABLE and
            HCCL_INTRA_ROCE_ENABLE select hierarchy, as the operators do.
        contract: "cann-8.2", "cann-9.1", or None for the oldest that knows comm_alg.
        implementation: whose windows: "stock" for CANN's own kernels, "ascend_moe" for ours. On A2
            up to 8 ranks are taken for one server.

    Raises:
        ConstraintError: no size can be computed, for example experts that do not divide. Sizes
            beyond a limit are computed: whether a call is legal is what check_dispatch answers.
        ValueError: an unknown name, or a count that is not positive.
    """
    return Deployment.of(
        product=product,
        max_bs=max_bs,
        hidden=hidden,
        topk=topk,
        ep_world_size=ep_world_size,
        moe_expert_num=moe_expert_num,
        shared_expert_num=shared_expert_num,
        shared_expert_rank_num=shared_expert_rank_num,
        op=op,
        comm_alg=comm_alg,
        contract=contract,
        implementation=implementation,
        env=os.environ,
    ).required
