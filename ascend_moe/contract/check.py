"""Run the rule table over a call: for one product and contract, or with both resolved."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from ascend_moe.contract.buffsize import CPU, IMPLEMENTATIONS, STOCK
from ascend_moe.contract.call import STOCK_NAME, Call
from ascend_moe.contract.defects import stock_defects
from ascend_moe.contract.errors import ConstraintError, Violation, plain
from ascend_moe.contract.limits import BETWEEN, CONTRACTS
from ascend_moe.contract.resolve import (
    CONTRACT_VARIABLE,
    Resolved,
    resolve_contract,
    resolve_product,
)
from ascend_moe.contract.rules import RULE_ORDER, Breach, Rule, applicable
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1


def violations(
    op: str,
    args: Mapping[str, object],
    *,
    product: str,
    contract: str,
    values: bool = False,
    safety: bool = False,
    env: Mapping[str, str] | None = None,
    window_mb: int | None = None,
    implementation: str = STOCK,
    defects: bool = False,
    rules: Container[str] | None = None,
) -> list[Violation]:
    """Every rule that the call breaks, in rule order.

    op: "dispatch" or "combine". args: the operator's own keywords, missing ones at their defaults.
    values: also rules that read tensor contents (a device synchronisation on NPU tensors).
    safety: only rules without which an executor would read out of bounds, hang or compute nonsense.
    env: environment variables, default os.environ. window_mb: the group's own HCCL buffer size.
    implementation: who will run it, and whose windows that buffer must hold: "stock" (CANN's
    kernels), "ascend_moe" (ours) or "cpu".
    defects: also known defects of the stock kernels (S-xx), where these will run.
    rules: ids; no other rule is looked at.

    Between the two contracts (contract "cann-8.3") what both refuse is an error, what one refuses a
    warning. Raises TypeError for a missing, unknown or wrongly typed keyword.
    """
    if contract == BETWEEN:
        seed, current = (
            violations(
                op,
                args,
                product=product,
                contract=each,
                values=values,
                safety=safety,
                env=env,
                window_mb=window_mb,
                implementation=implementation,
                rules=rules,
            )
            for each in CONTRACTS
        )
        merged = _between(seed, current)
        if defects and implementation == STOCK:
            call = Call(op, args, product=product, contract=CANN_9_1, env=env, window_mb=window_mb)
            merged += stock_defects(call, BETWEEN)
        return merged
    call = Call(
        op,
        args,
        product=product,
        contract=contract,
        env=env,
        window_mb=window_mb,
        implementation=implementation,
    )
    found: list[Violation] = []
    for check, rule in applicable(op, product, contract, call.path, values, safety):
        if rules is not None and rule.id not in rules:
            continue
        finding = check(call)
        if finding is None:
            continue
        breaches = [finding] if isinstance(finding, Breach) else finding
        found.extend(_violation(rule, breach, call) for breach in breaches)
    if defects and implementation == STOCK:
        found += stock_defects(call, contract)
    return found


def _violation(rule: Rule, breach: Breach, call: Call) -> Violation:
    template = rule.message if breach.message is None else breach.message
    param = breach.param or rule.param
    value, limit = plain(breach.value), breach.limit
    if isinstance(breach.value, str) and getattr(call, param, None) == breach.value:
        value = ascii(breach.value)  # the caller's own text, quoted
    return Violation(
        rule=rule.id,
        level=breach.level or rule.level,
        param=param,
        message=template.replace("{value}", value).replace("{limit}", plain(limit)),
        value=breach.value,
        limit=limit,
    )


def _between(seed: list[Violation], current: list[Violation]) -> list[Violation]:
    """Merge the findings of both contracts: an error needs both."""
    refused_twice = {
        violation.rule: True
        for violation in seed
        if violation.level == "error"
        and any(other.rule == violation.rule and other.level == "error" for other in current)
    }
    merged: dict[tuple[str, str], Violation] = {}
    for contract, found in ((CANN_8_2, seed), (CANN_9_1, current)):
        for violation in found:
            key = (violation.rule, violation.param)
            if violation.rule in refused_twice or violation.level == "warning":
                merged.setdefault(key, violation)
            elif key not in merged:
                note = f"{violation.message} (only {contract} refuses this)"
                merged[key] = replace(violation, level="warning", message=note)
    return sorted(merged.values(), key=lambda violation: RULE_ORDER[violation.rule])


def check_dispatch(
    *,
    product: str | None = None,
    contract: str | None = None,
    implementation: str | None = None,
    **call: object,
) -> list[Violation]:
    """All rules of npu_moe_distribute_dispatch_v2 over one call: an empty list means it is legal.

    call: the operator's own keywords. Tensors may live anywhere; meta tensors are fine. Rules that
    read contents run when the contents can be read without a device synchronisation.
    implementation: who will run it, "stock", "ascend_moe" or "cpu"; default: "cpu" for CPU tensors,
    else "stock". Raises ValueError for another name.
    """
    return _check("dispatch", call, product, contract, implementation)


def check_combine(
    *,
    product: str | None = None,
    contract: str | None = None,
    implementation: str | None = None,
    **call: object,
) -> list[Violation]:
    """All rules of npu_moe_distribute_combine_v2 over one call; see check_dispatch."""
    return _check("combine", call, product, contract, implementation)


def _check(
    op: str,
    call: Mapping[str, object],
    product: str | None,
    contract: str | None,
    implementation: str | None,
) -> list[Violation]:
    choices = (*IMPLEMENTATIONS, CPU)
    if implementation not in (None, *choices):
        raise ValueError(f"implementation is {implementation!a}, allowed: {', '.join(choices)}")
    return violations(
        op,
        call,
        product=resolve_product(product).name,
        contract=resolve_contract(op, call, contract).name,
        values=on_cpu(call),
        implementation=implementation or (CPU if on_cpu(call) else STOCK),
    )


def on_cpu(call: Mapping[str, object]) -> bool:
    """Whether contents can be read for free: expert_ids is a CPU tensor."""
    device = getattr(call.get("expert_ids"), "device", None)
    return getattr(device, "type", None) == "cpu"


def constraint_error(
    op: str,
    args: Mapping[str, object],
    found: list[Violation],
    product: Resolved,
    contract: Resolved,
    *,
    values: bool = False,
    window_mb: int | None = None,
    env: Mapping[str, str] | None = None,
    implementation: str = STOCK,
) -> ConstraintError:
    """The error for these violations; its first line says by what the call was judged."""
    errors = sum(violation.level == "error" for violation in found)
    warnings = len(found) - errors
    counts = [f"{errors} error{'s' * (errors > 1)}"] if errors else []
    counts += [f"{warnings} warning{'s' * (warnings > 1)}"] if warnings else []
    header = (
        f"{STOCK_NAME[op]}: {', '.join(counts)} under contract {contract.name} ({contract.how}) "
        f"on product {product.name} ({product.how})"
    )
    hint = ""
    for other in () if contract.name == BETWEEN or not errors else CONTRACTS:
        if other == contract.name:
            continue
        again = violations(
            op,
            args,
            product=product.name,
            contract=other,
            values=values,
            window_mb=window_mb,
            env=env,
            implementation=implementation,
        )
        if not any(violation.level == "error" for violation in again):
            hint = f"contract {other} would accept this call: export {CONTRACT_VARIABLE}={other}"
    return ConstraintError(found, header, hint)
