"""docs/stock-defects.md and its Chinese twin: sizes at which CANN's own kernels lose tokens, from contract/defects.py."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.contract.defects import DEFECTS, EVIDENCE
from generators.texts import LANGUAGES, SUFFIX, chinese

HEAD, FOOT = {}, {}
HEAD["en"] = """# Defects of the stock kernels

<!-- Made by scripts/generate from ascend_moe/contract/defects.py; change the records there. -->

Sizes at which CANN's own dispatch and combine kernels lose tokens, hang or leave their windows. No document names them.
They were found {evidence}: the kernels of ops-transformer, unchanged, over a model of the vector
core and the network card (2026-11-29). All concern hierarchy; full mesh is not among them.

A call that meets one gets a warning with the id, from the checks of a call on an NPU where CANN's kernels will run (not
on CPU tensors, not on the virtual NPU), from `ascend-moe check` and `ascend-moe buffsize`. `ascend-moe explain S-01`
prints one. Where the last line says so, nothing in a call shows the defect.
"""
FOOT["en"] = """
## What the vendor's code does besides

Not defects, but worth knowing: the A3 tiling of v9.0.0 and later refuses unequal batches in hierarchy although its
kernels handle them (X-41); hierarchy combine reads up to 31 floats past the end of `expand_scales` on A2 and A3; the A2
window formula of hierarchy suffices to 4 KB.
"""

HEAD["zh"] = """# 原生算子的缺陷

<!-- 由 scripts/generate 根据 ascend_moe/contract/defects.py 生成；请在那里修改，中文见 scripts/generators/texts/。 -->

CANN 自带的 dispatch 与 combine 算子在某些尺寸下会丢失 token、卡死或写到窗口之外。任何文档都没有提到这些尺寸。它们是在 CPU 上执行公开源码发现的，
并非在设备上测得：ops-transformer 的算子源码未做修改，运行在 vector core 与网卡的模型之上（2026-11-29）。全部涉及 hierarchy；fullmesh 不在其中。

遇到这些尺寸的调用会得到带编号的警告：来自 NPU 上将运行 CANN 算子的调用检查（CPU 张量和虚拟 NPU 上没有），以及 `ascend-moe check` 和
`ascend-moe buffsize`。`ascend-moe explain S-01` 打印其中一条。最后一行注明“不可见”的，从调用中看不出来。
"""
FOOT["zh"] = """
## 厂商代码的其他行为

不是缺陷，但值得了解：v9.0.0 及以后的 A3 tiling 在 hierarchy 中拒绝各 rank 不等的 batch，尽管其算子能够处理（X-41）；A2 与 A3 的 hierarchy combine
会在 `expand_scales` 末尾之后多读最多 31 个 float；A2 hierarchy 的窗口公式够用到 4 KB。
"""
SAID = {
    "en": {
        "do": "Do:",
        "seen": "Seen in:",
        "call": "A call:",
        "warned": "warned",
        "hidden": "not visible in a call",
    },
    "zh": {
        "do": "对策：",
        "seen": "出现于：",
        "call": "调用：",
        "warned": "会给出警告",
        "hidden": "不可见",
    },
}


def files(root: Path) -> dict[str, str]:
    return {f"docs/stock-defects{SUFFIX[language]}.md": page(language) for language in LANGUAGES}


def page(language: str) -> str:
    said = SAID[language]
    texts = chinese("defects") if language == "zh" else {}
    parts = [HEAD[language].format(evidence=EVIDENCE)]
    for defect in DEFECTS:
        english = (defect.title, defect.happens, defect.remedy, defect.versions)
        title, happens, remedy, versions = texts.get(defect.id, english)[:4]
        shown = said["warned"] if defect.check is not None else said["hidden"]
        parts.append(
            f"\n## {defect.id}: {title}\n\n{happens}\n\n"
            f"*{said['do']}* {remedy}\n\n*{said['seen']}* {versions} *{said['call']}* {shown}.\n"
        )
    return "".join(parts) + FOOT[language]
