"""docs/api.md and docs/api.zh.md: every parameter of both operators, from contract/signature.py, limits and rules."""

from __future__ import annotations

import json
from pathlib import Path

from ascend_moe.contract.limits import CONTRACTS, LIMITS, PRODUCTS
from ascend_moe.contract.rules import RULES
from ascend_moe.contract.signature import PARAMETERS, Parameter, schema
from generators.constraints import anchor
from generators.texts import LANGUAGES, SUFFIX

# Where a parameter may be something else than its default; the others everywhere that knows them.
SERVED = {
    "group_tp": lambda limits, path: 2 in limits.tp_sizes,
    "tp_world_size": lambda limits, path: 2 in limits.tp_sizes,
    "tp_rank_id": lambda limits, path: 2 in limits.tp_sizes,
    "tp_send_counts": lambda limits, path: 2 in limits.tp_sizes,
    "shared_expert_num": lambda limits, path: path.shared_ranks,
    "shared_expert_rank_num": lambda limits, path: path.shared_ranks,
    "shared_expert_x": lambda limits, path: path.shared_ranks,
    "zero_expert_num": lambda limits, path: "zero" in path.special_experts,
    "copy_expert_num": lambda limits, path: "copy" in path.special_experts,
    "const_expert_num": lambda limits, path: "const" in path.special_experts,
    "const_expert_alpha_1": lambda limits, path: "const" in path.special_experts,
    "const_expert_alpha_2": lambda limits, path: "const" in path.special_experts,
    "const_expert_v": lambda limits, path: "const" in path.special_experts,
    "ori_x": lambda limits, path: bool(path.special_experts),
    "performance_info": lambda limits, path: path.performance_info,
    "x_active_mask": lambda limits, path: bool(path.mask_ranks),
    "comm_quant_mode": lambda limits, path: len(path.comm_quant_modes) > 1,
    "expert_shard_type": lambda limits, path: False,
    "elastic_info": lambda limits, path: path.elastic_info,
    "y_dtype": lambda limits, path: False,
    "x_dtype": lambda limits, path: False,
    "scales_dtype": lambda limits, path: False,
    "comm_alg": lambda limits, path: len(limits.comm_algs["dispatch"]) > 2,
}


def files(root: Path) -> dict[str, str]:
    texts = json.loads((Path(__file__).parent / "texts/api.json").read_text())
    return {f"docs/api{SUFFIX[language]}.md": page(texts, language) for language in LANGUAGES}


def page(texts: dict[str, dict[str, str]], language: str) -> str:
    said = {key: text[language] for key, text in texts.items()}
    suffix = SUFFIX[language]
    parts = [said["head"]]
    for op, table in PARAMETERS.items():
        names = {"op": f"npu_moe_distribute_{op}_v2"}
        parts.append(
            f"\n## `{names['op']}`\n\n{said[f'{op} does']}\n\n```text\n{_schema(op)}\n```\n\n"
        )
        parts.append(f"| {said['columns']} |\n|---|---|---|---|---|---|\n")
        for parameter in table:
            rules = ", ".join(
                f"[{rule.id}](constraints{suffix}.md#{anchor(rule.id)})"
                for rule in RULES
                if rule.param == parameter.name and op in rule.operators
            )
            cells = [
                f"`{parameter.name}`",
                f"{parameter.type.replace('?', '')}{_default(parameter)}",
                said[parameter.name],
                where(parameter, said),
                parameter.since,
                rules or "-",
            ]
            parts.append(f"| {' | '.join(cells)} |\n")
        parts.append(f"\n{said[f'{op} returns']}\n")
    parts.append(said["foot"])
    return "".join(parts)


def _schema(op: str) -> str:
    return schema(op).replace(", *, ", ", *,\n    ").replace("(", "(\n    ", 1)


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return ""
    shown = '""' if parameter.default == "" else parameter.default
    return f" = {shown}"


def where(parameter: Parameter, said: dict[str, str]) -> str:
    """The products and contracts that take something else than the default."""
    serves = SERVED.get(parameter.name, lambda limits, path: True)
    known = CONTRACTS if parameter.since == CONTRACTS[0] else CONTRACTS[1:]
    taken = {
        product: [
            contract
            for contract in known
            if any(
                serves(LIMITS[contract, product], path)
                for path in LIMITS[contract, product].paths.values()
            )
        ]
        for product in PRODUCTS
    }
    if not any(taken.values()):
        return said["nowhere"]
    shown = [
        product if tuple(contracts) == tuple(known) else f"{product} ({', '.join(contracts)})"
        for product, contracts in taken.items()
        if contracts
    ]
    return ", ".join(shown)
