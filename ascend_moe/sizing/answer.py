"""Does it fit? One answer for every operator that asks for the HCCL buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ascend_moe.contract.buffsize import MB, STOCK, BuffSize
from ascend_moe.contract.errors import Violation
from ascend_moe.contract.window import VARIABLE, Configured
from ascend_moe.sizing.deployment import Deployment
from ascend_moe.sizing.fused import FUSED, FusedDeployment


class Answer(NamedTuple):
    """What is asked about, whichever operator it is."""

    product: str
    contract: str
    how: tuple[str, str]  # how the two were chosen
    kernels: str
    required: BuffSize
    least_mb: int
    largest_max_bs: Callable[[int], int]
    refused: tuple[Violation, ...]
    remarks: tuple[str, ...]


class Verdict(NamedTuple):
    """Whether a call of these sizes runs with this buffer, and what is in its way."""

    fits: bool
    words: str
    violations: tuple[Violation, ...]

    @classmethod
    def of(cls, answer: Answer, configured: Configured) -> Verdict:
        """A call that breaks a rule never fits, whatever the buffer is."""
        found = list(answer.refused)
        if configured.surprise:
            level = "error" if configured.refused else "warning"
            end = "" if configured.refused else "?"
            message = f"{configured.surprise}{end}"
            found.append(
                Violation("E-01", level, VARIABLE, message, configured.mb, "a plain number of MB")
            )
        large = answer.required.bytes <= configured.mb * MB and configured.mb >= answer.least_mb
        broken = [violation.rule for violation in found if violation.level == "error"]
        parts = [] if large or configured.refused else ["HCCL_BUFFSIZE is too SMALL"]
        if broken:
            rules = ", ".join(dict.fromkeys(broken))
            parts.append(f"refused whatever the size: it breaks {rules}")
        return cls(not parts, "; ".join(parts) or "fits", tuple(found))


def of_deployment(deployment: Deployment) -> Answer:
    """For dispatch and combine."""
    required = deployment.required
    return Answer(
        deployment.product.name,
        deployment.contract.name,
        (deployment.product.how, deployment.contract.how),
        f"{required.algorithm}, {deployment.implementation} kernels",
        required,
        deployment.window.megabytes(1),
        deployment.largest_max_bs,
        deployment.refused,
        remarks(required, deployment.product.name, deployment.implementation),
    )


def remarks(required: BuffSize, product: str, implementation: str) -> tuple[str, ...]:
    """Where others would say another number."""
    found = []
    if required.literal_mb is not None:
        found.append(
            f"note: a literal reading of the documents counts the default shared_expert_num = 1 and asks for "
            f"{required.literal_mb} MB; the operators count 0."
        )
    if implementation == STOCK and product == "A3" and required.stock_log_mb != required.mb:
        found.append(
            f"note: a stock error message would print {required.stock_log_mb} MB: it adds one to an exact size."
        )
    return tuple(found)


def of_fused(fused: FusedDeployment) -> Answer:
    """For an operator that is not this project's: the answer names the source of its sum."""
    limits = FUSED[fused.op]
    return Answer(
        fused.product.name,
        limits.source.split(",")[0],
        (fused.product.how, "the source of the sum"),
        f"{fused.op}, not dispatch_v2 or combine_v2",
        fused.required,
        1,
        fused.largest_max_bs,
        (),
        (f"source: {limits.source}", f"note: {limits.note}."),
    )
