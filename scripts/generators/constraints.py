"""docs/constraints.md and its Chinese twin: the limits and every rule, from the records that the checks run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ascend_moe.cli.explain import changes_text
from ascend_moe.contract.limits import CONTRACTS, LIMITS, PATHS, PRODUCTS, PathLimits
from ascend_moe.contract.rules import RULES, RULES_BY_ID, Rule
from ascend_moe.contract.rules import rule as sources
from ascend_moe.contract.signature import OPERATORS
from generators.texts import LANGUAGES, SUFFIX, chinese

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
    "X": {"en": "Both operators", "zh": "两个算子共有"},
    "D": {"en": "Dispatch", "zh": "Dispatch"},
    "C": {"en": "Combine", "zh": "Combine"},
    "E": {"en": "Environment and usage", "zh": "环境与用法"},
}
HEAD = {}
HEAD["en"] = """# Constraints

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


HEAD["zh"] = """# 约束

<!-- 由 scripts/generate 根据 ascend_moe/contract 生成；请在那里修改，中文见 scripts/generators/texts/。 -->

Atlas A2（Ascend910B）与 A3（Ascend910_93）上 `npu_moe_distribute_dispatch_v2` 和 `npu_moe_distribute_combine_v2` 的全部成文
约束。违反约束的调用会抛出一个 `ConstraintError`，一次列出所有违反的约束；`ascend-moe explain X-26` 打印其中一条，
`ascend-moe check FILE` 对用 JSON 描述的调用做检查。

公开文档的两个状态分开保存，称为*约束版本（contract）*：

* **cann-8.2**：这对算子最早的文档，2025 年 8 月。有 TP，没有 `comm_alg`。
* **cann-9.1**：2026 年 8 月的文档。有 `comm_alg`、特殊专家和 A3 hierarchy；不再有 TP。

CANN 8.2 及以前按前者判断，9.1 及以后按后者判断。两者之间（8.3 至 9.0），两个版本都拒绝的是错误，只有一个拒绝的是警告。
没有 NPU 时，取认识该调用全部参数的最早版本。可以用 `ASCEND_MOE_CONTRACT` 与 `ASCEND_MOE_PRODUCT` 指定。

符号：BS 为本 rank 的 token 数，每个 token 有 H 个元素，K 为每个 token 的专家数，A 为一个 rank 必须准备接收的行数，
SN 为共享专家数（默认的 `shared_expert_num=1, shared_expert_rank_num=0` 计为 0）。
"""
SAID = {
    "en": {
        "limits": "Limits",
        "rules": "Rules",
        "legend": "*Checked* says where: in every **call** (shapes, dtypes, attributes, variables), from "
        "**values** (contents: on CPU tensors, or with `ASCEND_MOE_CHECK=full`), across **ranks**, from "
        "what this **process** has seen before, or **documented** only. Levels other than error are named. Sources: ",
        "checked": "checked",
        "source": "source",
        "examples": "Breaks it: `{}`. Holds it: `{}`.",
    },
    "zh": {
        "limits": "限制",
        "rules": "约束条目",
        "legend": "*检查*说明在何处检查：**call** 为每次调用（形状、数据类型、属性、环境变量），**values** 为读取内容"
        "（CPU 张量，或 `ASCEND_MOE_CHECK=full`），**ranks** 为各 rank 之间，**process** 为与本进程之前的调用比较，"
        "**documented** 为仅有文档。不是错误（error）级别的会注明。来源：",
        "checked": "检查",
        "source": "来源",
        "examples": "违反：`{}`。满足：`{}`。",
    },
}


def files(root: Path) -> dict[str, str]:
    return {f"docs/constraints{SUFFIX[language]}.md": document(language) for language in LANGUAGES}


def document(language: str) -> str:
    said = SAID[language]
    parts = [HEAD[language], f"## {said['limits']}\n", limits_table()]
    sources_named = "; ".join(f"**{letter}** {text}" for letter, text in LEGEND.items())
    parts += [f"\n## {said['rules']}\n", f"{said['legend']}{sources_named}.\n"]
    texts = chinese("rules") if language == "zh" else {}
    for letter, heading in HEADINGS.items():
        parts.append(f"\n### {heading[language]}\n")
        parts += [rule_text(rule, language, texts) for rule in RULES if rule.id[0] == letter]
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


def rule_text(rule: Rule, language: str, texts: Mapping[str, tuple[str, ...]]) -> str:
    """A heading to link to, the statement, and one line of facts."""
    said = SAID[language]
    statement, note = texts.get(rule.id, (rule.statement, rule.note))[:2]
    lines = [f"#### {rule.id} `{rule.param}`\n", escape(statement)]
    if note:
        lines[-1] += f" *{escape(note)}*"
    facts = [f"{said['checked']}: {rule.checked}"]
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
    facts.append(f"{said['source']}: {source_letters(rule.source)}")
    lines.append(f"\n{'; '.join(facts)}.")
    if rule.breaks is not None:
        lines.append(said["examples"].format(changes_text(rule.breaks), changes_text(rule.holds)))
    return "\n".join(lines) + "\n"


def source_letters(source: str) -> str:
    for letter, text in sorted(LEGEND.items(), key=lambda item: -len(item[1])):
        source = source.replace(text, letter)
    return source


def escape(text: str) -> str:
    return text.replace("*", "\\*").replace("<", "&lt;")


def anchor(rule: str) -> str:
    """The anchor of a rule's heading: its id and its parameter."""
    return f"{rule}-{RULES_BY_ID[rule].param}".lower()
