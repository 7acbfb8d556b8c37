"""A deployment described as one dispatch call: the rules of the contract judge its sizes as they judge a call's."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from ascend_moe.contract.buffsize import IMPLEMENTATIONS, STOCK
from ascend_moe.contract.call import Call, DescribedTensor
from ascend_moe.contract.check import violations
from ascend_moe.contract.defects import stock_defects
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.limits import BETWEEN, HIERARCHY
from ascend_moe.contract.path import PCIE, ROCE
from ascend_moe.contract.resolve import Resolved, resolve_contract, resolve_product
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1

OPS = ("dispatch", "combine", "both")
# What the buffer's size is asked for cannot be wrong yet; what the environment says is not part of the sizes.
NOT_OF_SIZES = frozenset({"X-39", "E-01", "E-02"})


@dataclass(frozen=True)
class Described:
    """The call, and how product and contract were chosen."""

    product: Resolved
    contract: Resolved
    op: str
    implementation: str
    args: Mapping[str, object]
    env: Mapping[str, str]  # that selects the path
    call: Call

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
    ) -> Described:
        """Raises ValueError for an unknown name or a count that is not positive."""
        if op not in OPS:
            raise ValueError(f"op is {op!a}, allowed: {', '.join(OPS)}")
        if implementation not in IMPLEMENTATIONS:
            allowed = ", ".join(IMPLEMENTATIONS)
            raise ValueError(f"implementation is {implementation!a}, allowed: {allowed}")
        _require_counts(
            {
                "max_bs": max_bs,
                "hidden": hidden,
                "topk": topk,
                "ep_world_size": ep_world_size,
                "moe_expert_num": moe_expert_num,
            }
        )
        resolved_product = resolve_product(product, env)
        resolved = resolve_contract("dispatch", {"comm_alg": comm_alg}, contract, env)
        judged = judged_by(resolved.name)
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
        if comm_alg == HIERARCHY and resolved_product.name == "A2" and judged == CANN_8_2:
            # That contract selects hierarchy by two variables, not by a keyword.
            env = {PCIE: "1", ROCE: "0"}
            args["comm_alg"] = ""
        call = Call("dispatch", args, product=resolved_product.name, contract=judged, env=env)
        if call.path == HIERARCHY:
            args["expert_scales"] = DescribedTensor((max_bs, topk), "float32")
        return cls(resolved_product, resolved, op, implementation, args, env, call)

    def broken(self, rules: Container[str] | None = None) -> list[Violation]:
        """The rules that a call of these sizes breaks; of `rules` alone, if given."""
        return [
            violation
            for violation in violations(
                "dispatch",
                self.args,
                product=self.call.product,
                contract=self.call.contract,
                env=self.env,
                rules=rules,
            )
            if violation.rule not in NOT_OF_SIZES
        ]

    def defects(self) -> list[Violation]:
        """Known defects of the stock kernels at these sizes; those of the window need a window, and are left out."""
        if self.implementation != STOCK:
            return []
        call, contract = self.call, self.contract.name
        found = stock_defects(call, contract) if self.op != "combine" else []
        if self.op != "dispatch":
            args = {
                name: getattr(call, name)
                for name in ("ep_world_size", "ep_rank_id", "moe_expert_num", "comm_alg")
            }
            args |= {
                "expand_x": call.tokens,
                "expert_ids": call.expert_ids,
                "assist_info_for_combine": call.expert_ids,
                "ep_send_counts": call.expert_ids,
                "expert_scales": call.expert_ids,
            }
            combine = Call(
                "combine", args, product=call.product, contract=call.contract, env=call.env
            )
            found += stock_defects(combine, contract)
        return [defect for defect in found if defect.param != "HCCL_BUFFSIZE"]


def judged_by(contract: str) -> str:
    """The contract whose formula counts; between the two it is the later one."""
    return CANN_9_1 if contract == BETWEEN else contract


def _require_counts(counts: Mapping[str, object]) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not 1 <= value < 2**31:
            raise ValueError(f"{name} is {value}, allowed: 1..{2**31 - 1}")
