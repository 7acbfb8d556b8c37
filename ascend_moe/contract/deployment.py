"""A deployment as the buffer checker sees it: sizes without tensors, and what they require.

Python's and the CLI's entry to buffsize.py. Rules that make a size meaningless are refused here, by the
same records as in a call: the deployment is described as one dispatch call and given to the rule table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ascend_moe.contract.buffsize import MB, BuffSize, Traffic, largest_max_bs, megabytes, window
from ascend_moe.contract.call import Call, DescribedTensor
from ascend_moe.contract.check import violations
from ascend_moe.contract.errors import ConstraintError, Violation
from ascend_moe.contract.limits import BETWEEN, HIERARCHY
from ascend_moe.contract.resolve import Resolved, resolve_contract, resolve_product
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1
from ascend_moe.contract.window import call_traffic

OPS = ("dispatch", "combine", "both")
IMPLEMENTATIONS = ("stock", "ascend_moe")
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
        implementation: str = "stock",
    ) -> Deployment:
        """Raises ValueError for an unknown name, ConstraintError where no size can be computed."""
        if op not in OPS:
            raise ValueError(f"op is {op!a}, allowed: {', '.join(OPS)}")
        if implementation not in IMPLEMENTATIONS:
            allowed = ", ".join(IMPLEMENTATIONS)
            raise ValueError(f"implementation is {implementation!a}, allowed: {allowed}")
        counts = {
            "max_bs": max_bs,
            "hidden": hidden,
            "topk": topk,
            "ep_world_size": ep_world_size,
            "moe_expert_num": moe_expert_num,
        }
        _require_counts(counts)
        resolved_product = resolve_product(product, env)
        asked = {"comm_alg": comm_alg}
        resolved = resolve_contract("dispatch", asked, contract, env)
        judged = CANN_9_1 if resolved.name == BETWEEN else resolved.name
        args: dict[str, object] = {
            "x": DescribedTensor((max_bs, hidden), "bfloat16"),
            "expert_ids": DescribedTensor((max_bs, topk), "int32"),
            "ep_world_size": ep_world_size,
            "ep_rank_id": 0,
            "moe_expert_num": moe_expert_num,
            "shared_expert_num": shared_expert_num,
            "shared_expert_rank_num": shared_expert_rank_num,
            "comm_alg": comm_alg,
        }
        path_env = env
        if comm_alg == HIERARCHY and resolved_product.name == "A2" and judged == CANN_8_2:
            # That contract selects hierarchy by two variables, not by a keyword.
            path_env = {"HCCL_INTRA_PCIE_ENABLE": "1", "HCCL_INTRA_ROCE_ENABLE": "0"}
            args["comm_alg"] = ""
        call = Call("dispatch", args, product=resolved_product.name, contract=judged, env=path_env)
        if call.path == HIERARCHY:
            args["expert_scales"] = DescribedTensor((max_bs, topk), "float32")
        broken = [
            violation
            for violation in violations(
                "dispatch", args, product=call.product, contract=judged, env=path_env
            )
            if violation.rule not in ("X-39", "E-01", "E-02")
        ]
        fatal = [violation for violation in broken if violation.rule in SIZE_RULES]
        traffic = call_traffic(call)
        if fatal or traffic is None:
            header = (
                f"required_hccl_buffsize: no size under contract {resolved.name} ({resolved.how}) "
                f"on product {resolved_product.name} ({resolved_product.how})"
            )
            raise ConstraintError(fatal or broken, header)
        return cls(
            product=resolved_product,
            contract=resolved,
            path=call.path,
            op=op,
            traffic=traffic,
            literal_shared_experts=shared_expert_num,
            refused=tuple(broken),
        )

    @property
    def _judged(self) -> str:
        return CANN_9_1 if self.contract.name == BETWEEN else self.contract.name

    def _window(self, traffic: Traffic) -> BuffSize:
        return window(
            traffic,
            product=self.product.name,
            contract=self._judged,
            path=self.path,
            op=self.op,
        )

    @property
    def required(self) -> BuffSize:
        """The requirement, with the literal reading of the documents beside it where that differs."""
        effective = self._window(self.traffic)
        literal = self._window(replace(self.traffic, shared_experts=self.literal_shared_experts))
        if self.product.name != "A3" or literal.mb == effective.mb:
            return effective
        return replace(effective, literal_mb=literal.mb)

    def fits(self, available_mb: int) -> bool:
        return self.required.bytes <= available_mb * MB and available_mb >= megabytes(
            1, self.product.name
        )

    def largest_max_bs(self, available_mb: int) -> int:
        """The largest max_bs that fits; 0 if none does."""
        return largest_max_bs(
            self.traffic,
            available_mb,
            product=self.product.name,
            contract=self._judged,
            path=self.path,
            op=self.op,
        )


def _require_counts(counts: Mapping[str, object]) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not 1 <= value < 2**31:
            raise ValueError(f"{name} is {value}, allowed: 1..{2**31 - 1}")
