"""docs/errors.md and its Chinese twin: what a failed run prints, from the tables of `explain` (ascend_moe/diagnosis)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ascend_moe.diagnosis.causes import CAUSES
from ascend_moe.diagnosis.entry import Entry
from ascend_moe.diagnosis.symptoms import SECTIONS
from generators.constraints import anchor, escape
from generators.texts import LANGUAGES, SUFFIX, chinese

HEAD = {}
HEAD["en"] = """# Errors, and what they mean

<!-- Made by scripts/generate from the tables in ascend_moe/diagnosis/; change the records there. -->

What a failed run prints, what it means and what to do. `ascend-moe explain LOG` finds these in a log, says which
operator failed, reads the rule out of a refusal of dispatch or combine and recomputes the numbers of its buffer line;
`ascend-moe explain 561002` prints one entry. Rules are in [constraints.md](constraints.md), defects of CANN's own
kernels in [stock-defects.md](stock-defects.md).

A meaning holds for whoever met the error. The suspects are those of dispatch and combine: they count where one of the
two failed, which `fault kernel_name=`, `call aclnn... failed` or `OpName:[...]` in the log says. What another operator
printed is its own. A line of tiling (EZ9999, EZ0004, EZ0024 ..) that names a parameter is not listed: `explain` maps it
to its rule.
"""
HEAD["zh"] = """# 错误及其含义

<!-- 由 scripts/generate 根据 ascend_moe/diagnosis/ 中的表格生成；请在那里修改，中文见 scripts/generators/texts/。 -->

失败的运行会打印什么、含义是什么、该怎么办。`ascend-moe explain LOG` 在日志中查找这些内容，指出是哪个算子失败，从 dispatch 或 combine
的拒绝信息中读出违反的约束，并重新计算缓冲区一行中的数字；`ascend-moe explain 561002` 打印其中一条。约束见 [constraints.zh.md](constraints.zh.md)，
CANN 自带算子的缺陷见 [stock-defects.zh.md](stock-defects.zh.md)。

含义适用于任何遇到该错误的算子。“疑因”是针对 dispatch 与 combine 的：只有当两者之一失败时才成立，日志中的 `fault kernel_name=`、
`call aclnn... failed` 或 `OpName:[...]` 会说明是谁失败。其他算子打印的内容是它自己的。tiling 打印的、写明参数名的行（EZ9999、EZ0004、
EZ0024 等）不在此列：`explain` 会把它对应到约束。
"""
COLUMNS = {
    "en": "name | meaning | what to do | suspects | source",
    "zh": "名称 | 含义 | 怎么办 | 疑因 | 来源",
}
SUSPECTS = {"en": "Suspects", "zh": "疑因"}
SUSPECT_COLUMNS = {
    "en": "name | may be wrong | what to do | rules",
    "zh": "名称 | 可能的问题 | 怎么办 | 约束",
}


def files(root: Path) -> dict[str, str]:
    return {f"docs/errors{SUFFIX[language]}.md": page(language) for language in LANGUAGES}


def page(language: str) -> str:
    texts = chinese("errors") if language == "zh" else {}
    parts = [HEAD[language]]
    for title, table in SECTIONS:
        parts.append(
            f"\n## {texts.get(title, title)}\n\n| {COLUMNS[language]} |\n|---|---|---|---|---|\n"
        )
        parts += [_row(entry, language, texts) for entry in table]
    parts.append(
        f"\n## {SUSPECTS[language]}\n\n| {SUSPECT_COLUMNS[language]} |\n|---|---|---|---|\n"
    )
    for name, cause in CAUSES.items():
        rules = ", ".join(link(rule, language) for rule in cause.rules)
        says, remedy = (escape(texts.get(text, text)) for text in (cause.says, cause.remedy))
        parts.append(f"| **{name}** | {says} | {remedy} | {rules or '-'} |\n")
    return "".join(parts)


def _row(entry: Entry, language: str, texts: Mapping[str, str]) -> str:
    symbol = f" ({entry.symbol})" if entry.symbol else ""
    suspects = ", ".join(entry.causes)
    said = [
        rule for rule in entry.rules if not any(rule in CAUSES[key].rules for key in entry.causes)
    ]
    suspects = "; ".join(
        part for part in (", ".join(link(rule, language) for rule in said), suspects) if part
    )
    meaning, advice = (escape(texts.get(text, text)) for text in (entry.meaning, entry.advice))
    cells = [
        f'<a id="{place(entry.name)}"></a>**{escape(entry.name)}**{symbol}',
        meaning,
        advice or "-",
        suspects or "-",
        escape(entry.source),
    ]
    return "| " + " | ".join(cells) + " |\n"


def place(name: str) -> str:
    """The anchor of an entry, the same in both languages: `errors.md#561002`, `errors.md#ret-9`."""
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")


def link(rule: str, language: str) -> str:
    """A rule and its heading among the constraints."""
    return f"[{rule}](constraints{SUFFIX[language]}.md#{anchor(rule)})"
