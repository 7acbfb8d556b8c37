"""docs/constraints.md: the limits and every rule, from the records that the checks run."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.cli.explain import changes_text
from ascend_moe.contract.limits import CONTRACTS, LIMITS, PATHS, PRODUCTS, PathLimits
from ascend_moe.contract.rules import RULES, Rule
from ascend_moe.contract.rules import rule as sources
from ascend_moe.contract.signature import OPERATORS

# Letters for the sources, longest text first so that one is not taken for part of another.
LEGEND = {
    "S": sources.SEED_DOC,
    "C": sources.CURRENT_DOC,
    "A": sources.ACLNN_DOC,
    "T": sources.TILING,
    "W": sources.WRAPPER,
    "K": sources.KERNEL,
}
HEADINGS = {
    "X": "Both operators",
    "D": "Dispatch",
    "C": "Combine",
    "E": "Environment and usage",
}
HEAD = """# Constraints

<!-- Made by scripts/generate from ascend_moe/contract; change the records there. -->

Every documented rule of `npu_moe_distribute_dispatch_v2` and `npu_moe_distribute_combine_v2` for
Atlas A2 (Ascend910B) and A3 (Ascend910_93). A call that breaks rules ends in one `ConstraintError` that
lists all of them; `ascend-moe explain X-26` prints one, `ascend-moe check FILE` runs them over a call
described in JSON.

Two states of the public documents are kept apart, as *contracts*:

* **cann-8.2**: the first documents of the pair, August 2025. TP exists, `comm_alg` does not.
* **cann-9.1**: the documents of August 2026. `comm_alg`, special experts and hierarchy on A3; TP is gone.

CANN up to 8.2 is judged by the first, from 9.1 on by the second. Between them (8.3 to 9.0) what both refuse
is an error and what one refuses a warning. Without an NPU the oldest contract that knows every parameter
of the call counts. `ASCEND_MOE_CONTRACT` and `ASCEND_MOE_PRODUCT` decide otherwise.

Symbols: BS tokens of H elements on this rank, K experts per token, A rows that a rank must be ready to
receive, SN shared experts (0 for the default `shared_expert_num=1, shared_expert_rank_num=0`).
"""


def files(root: Path) -> dict[str, str]:
    return {"docs/constraints.md": document()}


def document() -> str:
    parts = [HEAD, "## Limits\n", limits_table()]
    parts += [
        "\n## Rules\n",
        "*Checked* says where: in every **call** (shapes, dtypes, attributes, variables), from "
        "**values** (contents: on CPU tensors, or with `ASCEND_MOE_CHECK=full`), across **ranks**, from "
        "what this **process** has seen before, or **documented** only. Levels other than error are named. Sources: "
        + "; ".join(f"**{letter}** {text}" for letter, text in LEGEND.items())
        + ".\n",
    ]
    for letter, heading in HEADINGS.items():
        parts.append(f"\n### {heading}\n")
        parts += [rule_text(rule) for rule in RULES if rule.id[0] == letter]
    return "\n".join(parts)


def limits_table() -> str:
    columns = [
        (contract, product, path, LIMITS[contract, product].paths[path])
        for contract in CONTRACTS
        for product in PRODUCTS
        for path in PATHS
        if path in LIMITS[contract, product].paths
    ]
    rows = {
        "contract": [contract for contract, _, _, _ in columns],
        "product": [product for _, product, _, _ in columns],
        "path": [path for _, _, path, _ in columns],
        "ep_world_size": [str(limits.ep_sizes) for *_, limits in columns],
        "BS": [f"1..{limits.batch_max}" for *_, limits in columns],
        "H": [hidden_text(limits) for *_, limits in columns],
        "K": [f"1..{limits.topk_max}" for *_, limits in columns],
        "moe_expert_num": [f"1..{limits.moe_experts_max}" for *_, limits in columns],
        "experts per rank": [str(limits.local_experts_max or "-") for *_, limits in columns],
        "experts per rank * ep": [str(limits.local_times_ep_max or "-") for *_, limits in columns],
        "tp_world_size": [
            ", ".join(map(str, LIMITS[contract, product].tp_sizes))
            for contract, product, _, _ in columns
        ],
        "shared experts": ["yes" if limits.shared_ranks else "no" for *_, limits in columns],
        "special experts": [", ".join(limits.special_experts) or "none" for *_, limits in columns],
        "x_active_mask": [mask_text(limits) for *_, limits in columns],
        "comm_quant_mode": [", ".join(map(str, limits.comm_quant_modes)) for *_, limits in columns],
    }
    names = list(rows)
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += [
        "| " + " | ".join(rows[name][index] for name in names) + " |"
        for index in range(len(columns))
    ]
    return "\n".join(lines)


def hidden_text(limits: PathLimits) -> str:
    step = f", % {limits.hidden_multiple} = 0" if limits.hidden_multiple > 1 else ""
    return f"{limits.hidden_min}..{limits.hidden_max}{step}"


def mask_text(limits: PathLimits) -> str:
    text = " or ".join(f"{rank}-D" for rank in limits.mask_ranks) or "None"
    return f"{text}, ignored" if limits.mask_ignored else text


def rule_text(rule: Rule) -> str:
    """A heading to link to, the statement, and one line of facts."""
    lines = [f"#### {rule.id} `{rule.param}`\n", escape(rule.statement)]
    if rule.note:
        lines[-1] += f" *{escape(rule.note)}*"
    facts = [f"checked: {rule.checked}"]
    if rule.level != "error":
        facts.append(rule.level)
    facts += [
        ", ".join(getattr(rule, field))
        for field, everything in (
            ("operators", OPERATORS),
            ("products", PRODUCTS),
            ("contracts", CONTRACTS),
            ("paths", PATHS),
        )
        if tuple(getattr(rule, field)) != everything
    ]
    facts.append(f"source: {source_letters(rule.source)}")
    lines.append(f"\n{'; '.join(facts)}.")
    if rule.breaks is not None:
        lines.append(
            f"Breaks it: `{changes_text(rule.breaks)}`. Holds it: `{changes_text(rule.holds)}`."
        )
    return "\n".join(lines) + "\n"


def source_letters(source: str) -> str:
    for letter, text in sorted(LEGEND.items(), key=lambda item: -len(item[1])):
        source = source.replace(text, letter)
    return source


def escape(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "&lt;")
