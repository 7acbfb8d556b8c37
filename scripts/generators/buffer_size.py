"""docs/buffer-size.md (its tables) and docs/buffer-size.svg (its plot)."""

from __future__ import annotations

import re
from pathlib import Path

from ascend_moe.contract.buffsize import Traffic, Window
from ascend_moe.contract.limits import FULLMESH, FULLMESH_V2, HIERARCHY, path_limits
from ascend_moe.contract.signature import CANN_8_2, CANN_9_1
from generators.plots import Curve, Picture, lines
from generators.texts import LANGUAGES, SUFFIX

# (what it is, BS, H, K, ep, moe, SN, SR)
EXAMPLES = (
    ("DeepSeek-V3, 16 ranks", 64, 7168, 8, 16, 256, 0, 0),
    ("DeepSeek-V3, 288 ranks, 32 of them shared", 32, 7168, 8, 288, 256, 1, 32),
    ("DeepSeek-V3, 64 ranks, largest batch", 512, 7168, 8, 64, 256, 0, 0),
    ("128 experts of 7168", 256, 7168, 8, 16, 128, 0, 0),
    ("160 experts of 5120", 96, 5120, 8, 32, 160, 0, 0),
    ("64 experts of 2048", 128, 2048, 6, 8, 64, 0, 0),
)
A2_EXAMPLES = (
    ("DeepSeek-V3, 16 ranks", 16, 7168, 8, 16, 256),
    ("DeepSeek-V3, 32 ranks", 64, 7168, 8, 32, 256),
    ("DeepSeek-V3, 64 ranks", 256, 7168, 8, 64, 256),
    ("384 experts of 5120", 256, 5120, 8, 16, 384),
)
DEPLOYMENTS_ZH = {
    ", largest batch": "，最大 batch",
    ", 32 of them shared": "（其中 32 个为共享专家）",
    ", ": "，",
    " ranks": " 个 rank",
    " experts of ": " 个专家，维度 ",
}
MODEL = {"hidden": 7168, "topk": 8, "ep": 32, "moe_experts": 256, "local_experts": 8}
CURVES = (
    ("A3 full mesh", "A3", CANN_9_1, FULLMESH),
    ("A3 fullmesh_v2", "A3", CANN_9_1, FULLMESH_V2),
    ("A3 hierarchy", "A3", CANN_9_1, HIERARCHY),
    ("A2 full mesh", "A2", CANN_9_1, FULLMESH),
    ("A2 hierarchy (cann-8.2)", "A2", CANN_8_2, HIERARCHY),
    ("A2 hierarchy (cann-9.1)", "A2", CANN_9_1, HIERARCHY),
)


def files(root: Path) -> dict[str, str | Picture]:
    made: dict[str, str | Picture] = {"docs/buffer-size.svg": picture()}
    for language in LANGUAGES:
        name = f"docs/buffer-size{SUFFIX[language]}.md"
        text = (root / name).read_text()
        for block, content in (("a3", a3_table(language)), ("a2", a2_table(language))):
            text = re.sub(
                f"(<!-- {block}: .*? -->\n).*?(<!-- end -->)",
                lambda found, content=content: f"{found[1]}{content}{found[2]}",
                text,
                flags=re.DOTALL,
            )
        made[name] = text
    return made


def traffic(
    bs: int, hidden: int, topk: int, ep: int, moe: int, sn: int = 0, sr: int = 0
) -> Traffic:
    return Traffic(bs, hidden, topk, ep, moe, moe // (ep - sr), sn)


def a3_table(language: str) -> str:
    heads = {
        "en": "deployment | BS | H | K | ep | experts | full mesh | MB | fullmesh_v2 MB",
        "zh": "部署 | BS | H | K | ep | 专家数 | fullmesh | MB | fullmesh_v2 MB",
    }
    lines = [
        f"| {heads[language]} |\n",
        "|---|---|---|---|---|---|---|---|---|\n",
    ]
    for name, *sizes in EXAMPLES:
        sent = traffic(*sizes)
        mesh = Window("A3", CANN_9_1, FULLMESH, "both").required(sent)
        v2_limits = path_limits(CANN_9_1, "A3", FULLMESH_V2)
        v2 = Window("A3", CANN_9_1, FULLMESH_V2, "both").required(sent).mb
        shown = v2 if sent.max_bs <= v2_limits.batch_max else f"BS > {v2_limits.batch_max}"
        formula = mesh.formula.split(" = ")[0].replace("*", "\\*")
        lines.append(
            f"| {named(name, language)} | {sizes[0]} | {sizes[1]} | {sizes[2]} | {sizes[3]} | {sizes[4]} "
            f"| {formula} = {mesh.bytes} bytes | **{mesh.mb}** | {shown} |\n"
        )
    return "".join(lines)


def named(deployment: str, language: str) -> str:
    """A deployment's name in a language."""
    words = {} if language == "en" else DEPLOYMENTS_ZH
    for english, chinese in words.items():
        deployment = deployment.replace(english, chinese)
    return deployment


def a2_table(language: str) -> str:
    heads = {
        "en": "deployment | BS | H | K | ep | experts | full mesh MB | hierarchy, cann-8.2 MB "
        "| hierarchy, cann-9.1 MB",
        "zh": "部署 | BS | H | K | ep | 专家数 | fullmesh MB | hierarchy（cann-8.2）MB "
        "| hierarchy（cann-9.1）MB",
    }
    lines = [
        f"| {heads[language]} |\n",
        "|---|---|---|---|---|---|---|---|---|\n",
    ]
    for name, *sizes in A2_EXAMPLES:
        sent = traffic(*sizes)
        needed = [
            Window("A2", contract, path, "both").required(sent).mb
            for contract, path in (
                (CANN_9_1, FULLMESH),
                (CANN_8_2, HIERARCHY),
                (CANN_9_1, HIERARCHY),
            )
        ]
        lines.append(f"| {named(name, language)} | {' | '.join(map(str, (*sizes, *needed)))} |\n")
    return "".join(lines)


def picture() -> Picture:
    """Required MB over max_bs for one model on both products, as far as each path's limit."""
    curves = []
    for label, product, contract, path in CURVES:
        window = Window(product, contract, path, "both")
        largest = path_limits(contract, product, path).batch_max
        points = [
            (bs, window.required(Traffic(max_bs=bs, **MODEL)).mb)
            for bs in (1, *range(16, largest + 1, 16))
        ]
        curves.append(Curve(label, tuple(points)))
    return lines(
        "HCCL_BUFFSIZE over max_bs: H 7168, K 8, 256 experts on 32 ranks",
        "max_bs (tokens per rank)",
        "MB",
        curves,
        level=("default 200 MB", 200),
    )
