"""docs/calculator.html answers as the package does, in a browser and through its form; and what a reader needs."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.limits import BETWEEN, CONTRACTS, PATHS, PRODUCTS
from ascend_moe.contract.resolve import knows_call
from ascend_moe.contract.window import Configured
from ascend_moe.sizing.answer import Verdict, of_deployment
from ascend_moe.sizing.deployment import Deployment, required_hccl_buffsize
from ascend_moe.sizing.model import read_model
from ascend_moe.sizing.serving import derive_max_bs
from tests.docs.browser import needs_chromium, outcome

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/calculator.html").read_text()
WORDS = json.loads((ROOT / "scripts/generators/calculator/words.json").read_text())
SHAPES = 2000  # that have a size; others are refused by a rule

FILL = """
const fill = (values) => {
  reset();
  for (const [name, value] of Object.entries(values)) $(name).value = value;
  $("max_bs").dispatchEvent(new Event("input", { bubbles: true }));
};
const TEXTS = ["mb", "bytes", "formula", "export", "largest", "memory", "judged"];
const text = (id) => $(id).textContent;
const shown = () => ({
  sized: !$("result").hidden,
  missing: text("missing"),
  ...Object.fromEntries(TEXTS.map((id) => [id, text(id)])),
  fits: $("verdict").className === "good",
  remarks: [...$("remarks").children].map((item) => item.textContent),
  violations: [...$("violations").children].map((item) => ({ ...item.dataset })),
  drawn: $("plot").querySelectorAll("path").length,
});
"""


def shapes() -> list[dict[str, Any]]:
    """Random inputs of the form: mostly sizes of models, some beyond every limit."""
    draw = random.Random(24)
    made = []
    for _ in range(SHAPES * 11 // 5):
        product = draw.choice(PRODUCTS)
        ep = draw.choice(
            (2, 4, 8, 16, 16, 32, 48, 64, 72, 128, 256, 288, 768, draw.randint(1, 1000))
        )
        shared = (
            draw.choice((0, 0, 0, 1, 2, 4)) if product == "A3" else draw.choice((0, 0, 0, 0, 1))
        )
        ranks = min(shared * draw.choice((1, 2, 8)), ep - 1) if shared else 0
        local = draw.choice((1, 1, 2, 4, 8, 16, 24, 32))
        big = draw.random() < 0.05
        any_size = draw.randint(1, 2**31 - 1)
        made.append(
            {
                "product": product,
                "contract": draw.choice(("auto", *CONTRACTS, BETWEEN)),
                "algorithm": draw.choice((PATHS[0], *PATHS)),
                "implementation": draw.choice(("stock", "stock", "ascend_moe")),
                "op": draw.choice(("both", "both", "dispatch", "combine")),
                "max_bs": any_size if big else draw.choice((1, 8, 256, 512, draw.randint(1, 600))),
                "hidden": any_size
                if big
                else draw.choice(
                    (2048, 5120, 7168, draw.randint(1, 9000), 32 * draw.randint(1, 320))
                ),
                "topk": draw.choice((1, 6, 8, 8, 9, 10, 12, 16, draw.randint(1, 40))),
                "ep_world_size": ep,
                "moe_expert_num": max(ep - ranks, 1) * local + (draw.random() < 0.05),
                "shared_expert_num": draw.choice((shared, shared, 1)),
                "shared_expert_rank_num": ranks,
                "have": draw.choice((1, 2, 200, 512, 1024, 4096, draw.randint(1, 65535))),
            }
        )
    return made


def deployment_or_refusal(shape: dict[str, Any]) -> Deployment | ConstraintError:
    sizes = dict(shape)
    del sizes["have"]
    comm_alg = "" if (algorithm := sizes.pop("algorithm")) == PATHS[0] else algorithm
    if sizes["contract"] == "auto":  # as on a machine without an NPU
        sizes["contract"] = CONTRACTS[0 if knows_call("dispatch", {"comm_alg": comm_alg}) else 1]
    try:
        return Deployment.of(**sizes, comm_alg=comm_alg, env={})
    except ConstraintError as refusal:
        return refusal


def as_shown(violations) -> list[dict[str, str]]:
    return [
        {"rule": each.rule, "level": each.level, "param": each.param, "message": each.message}
        for each in violations
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The shapes, and what the page shows for each."""
    drawn = shapes()
    script = (
        f"{FILL} return {json.dumps(drawn)}.map((shape) => {{ fill(shape); return shown(); }});"
    )
    return list(
        zip(drawn, outcome(PAGE, script, tmp_path_factory.mktemp("page"), "#lang=en"), strict=True)
    )


@needs_chromium
def test_every_answer_is_that_of_the_package(answers):
    sized = 0
    for shape, shown in answers:
        expected = deployment_or_refusal(shape)
        if not isinstance(expected, Deployment):
            assert not shown["sized"], shape
            assert shown["violations"] == as_shown(expected.violations), shape
            continue
        sized += 1
        answer, have = of_deployment(expected), shape["have"]
        required = answer.required
        assert int(shown["bytes"]) == required.bytes, shape
        assert int(shown["mb"]) == required.mb, shape
        assert shown["formula"] == required.formula, shape
        assert shown["export"] == f"export HCCL_BUFFSIZE={required.mb}"
        assert shown["judged"] == f"{expected.contract.name}, {required.algorithm}", shape
        assert shown["largest"].split()[0] == str(answer.largest_max_bs(have)), shape
        assert shown["memory"].split()[0] == str(required.memory_mb)
        assert shown["fits"] == Verdict.of(answer, Configured(have, "the page")).fits, shape
        assert shown["remarks"] == list(answer.remarks), shape
        assert shown["violations"] == as_shown(answer.refused), shape
        assert shown["drawn"] >= 2
    assert sized >= SHAPES


@needs_chromium
def test_bytes_are_those_of_the_public_function(answers, monkeypatch):
    for name in ("HCCL_INTRA_PCIE_ENABLE", "HCCL_INTRA_ROCE_ENABLE", "ASCEND_MOE_CONTRACT"):
        monkeypatch.delenv(name, raising=False)
    compared = 0
    for shape, shown in answers:
        if not shown["sized"]:
            continue
        asked = {name: value for name, value in shape.items() if name not in ("have", "algorithm")}
        comm_alg = "" if shape["algorithm"] == PATHS[0] else shape["algorithm"]
        asked["contract"] = shown["judged"].split(",")[0]
        assert required_hccl_buffsize(**asked, comm_alg=comm_alg).bytes == int(shown["bytes"])
        compared += 1
    assert compared >= SHAPES


CONFIGS: tuple[Any, ...] = (
    {"hidden_size": 4096, "num_experts": 128, "num_experts_per_tok": 8},
    {"hidden_size": 7168, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1},
    {
        "text_config": {"hidden_size": 2048, "num_experts": 512, "num_experts_per_tok": 10},
        "hidden_size": 1,
    },
    {"thinker_config": {"text_config": {"d_model": 64, "moe_num_experts": 8, "moe_topk": 2}}},
    {"hidden_size": 6144, "moe_latent_size": 1024, "num_experts": 8, "moe_k": 2},
    {"d_model": 6144, "ffn_config": {"moe_num_experts": 16, "moe_top_k": 4}},
    {"hidden_size": 64, "num_experts": [8, 8], "num_experts_per_tok": [2, 2]},
    {"hidden_size": 64, "num_experts": [8, 16], "num_experts_per_tok": 2},
    {"hidden_size": 64, "num_experts": 8, "n_routed_experts": 16, "num_experts_per_tok": 2},
    {"hidden_size": 64, "num_experts": None, "n_routed_experts": 16, "num_experts_per_tok": 2},
    {"hidden_size": 64},
    {"num_experts": 8, "num_experts_per_tok": 2},
    {"hidden_size": 64, "num_experts": 8},
    {"hidden_size": 64.0, "num_experts": 8, "num_experts_per_tok": 2},
    {"hidden_size": True, "num_experts": 8, "num_experts_per_tok": 2},
    {"hidden_size": "64", "num_experts": 8, "num_experts_per_tok": 2},
    [1, 2],
    7,
)


@needs_chromium
def test_a_config_gives_the_sizes_and_keys_of_the_package(tmp_path):
    texts = [*(json.dumps(config) for config in CONFIGS), "{", "hidden_size: 64"]
    script = f"""{FILL} return {json.dumps(texts)}.map((text) => {{
      reset(); $("config").value = text; $("config").dispatchEvent(new Event("input", {{ bubbles: true }}));
      return [$("config-says").textContent, $("hidden").value, $("moe_expert_num").value, $("topk").value];
    }});"""
    for text, (says, *sizes) in zip(texts, outcome(PAGE, script, tmp_path), strict=True):
        path = tmp_path / "config.json"
        path.write_text(text)
        try:
            model = read_model(path)
        except ValueError:
            assert sizes == ["", "", ""], text
            assert says, text
            continue
        assert sizes == [str(model.hidden), str(model.experts), str(model.topk)], text
        assert says == ", ".join(
            f"{model.keys[size]} = {getattr(model, size)}" for size in ("hidden", "topk", "experts")
        )


@needs_chromium
def test_serving_flags_give_the_max_bs_of_the_package(tmp_path):
    draw = random.Random(7)
    rows: list[dict[str, int]] = []
    for _ in range(200):
        row = {"spec_tokens": draw.randint(0, 4), "serving_tp": draw.choice((1, 2, 8))}
        for name in ("max_num_seqs", "max_capture_size", "max_num_batched_tokens", "cap"):
            if draw.random() < 0.4:
                row[name] = draw.choice((1, 64, 600, 5000))
        rows.append(row)
    script = f"{FILL} return {json.dumps(rows)}.map((row) => {{ fill(row); return text('max-bs-says'); }});"
    for row, says in zip(rows, outcome(PAGE, script, tmp_path), strict=True):
        flags = dict.fromkeys(("max_num_seqs", "max_capture_size", "max_num_batched_tokens", "cap"))
        derived = derive_max_bs(**{**flags, **row})
        expected = f"{derived.max_bs}: {derived.derivation}; {derived.covers}" if derived else ""
        assert says == expected, row


@needs_chromium
def test_a_known_model_three_clicks_and_two_numbers(tmp_path):
    """Choose the model, say how many ranks and tokens: what a new user does first."""
    models = json.loads((ROOT / "scripts/generators/calculator/models.json").read_text())
    script = f"""{FILL} return {json.dumps(list(models))}.map((name) => {{
      reset();
      for (const [id, value] of [["known", name], ["ep_world_size", "16"], ["max_bs", "64"]]) {{
        $(id).value = value;
        $(id).dispatchEvent(new Event("input", {{ bubbles: true }}));
      }}
      return shown();
    }});"""
    for sizes, shown in zip(models.values(), outcome(PAGE, script, tmp_path), strict=True):
        asked = {**sizes, "product": "A3", "contract": CONTRACTS[0]}
        required = required_hccl_buffsize(**asked, ep_world_size=16, max_bs=64)
        assert (int(shown["mb"]), shown["missing"]) == (required.mb, "")


@needs_chromium
def test_a_link_carries_the_inputs(tmp_path):
    values = {
        "product": "A2",
        "contract": "cann-9.1",
        "algorithm": "hierarchy",
        "hidden": "7168",
        "topk": "8",
        "moe_expert_num": "256",
        "ep_world_size": "32",
        "max_num_seqs": "64",
        "have": "300",
    }
    script = f"{FILL} fill({json.dumps(values)}); return [$('link').getAttribute('href'), shown()];"
    link, first = outcome(PAGE, script, tmp_path, "#lang=zh")
    assert "lang=zh" in link
    assert first["sized"]
    second = outcome(PAGE, f"{FILL} return shown();", tmp_path, link)
    assert second == first
    unknown = "#product=A9&nobody=1&max_bs=%3Cimg%3E&lang=xx"
    third = outcome(PAGE, f"{FILL} return [shown(), $('product').value];", tmp_path, unknown)
    assert not third[0]["sized"]
    assert third[1] == "A3"


@needs_chromium
def test_a_number_out_of_range_is_marked_and_named(tmp_path):
    script = f"""{FILL} return ["0", "-1", "1e3", "2147483648", "512MB"].map((text) => {{
      fill({{ max_bs: text }}); return [$("max_bs").getAttribute("aria-invalid"), shown().missing, shown().sized];
    }});"""
    for invalid, missing, sized in outcome(PAGE, script, tmp_path, "#lang=en"):
        assert invalid == "true"
        assert "max_bs" in missing or "tokens of one rank" in missing
        assert "1..2147483647" in missing
        assert not sized


@needs_chromium
@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_phone_needs_no_sideways_scrolling(tmp_path, language):
    """With a body as wide as a phone and long texts; and every control can be reached and has a name."""
    fragment = (
        "#hidden=8191&topk=17&moe_expert_num=1040&ep_world_size=16&max_bs=513&shared_expert_num=3"
        f"&lang={language}"
    )
    script = """
      document.documentElement.style.width = document.body.style.width = "360px";
      const wide = [...document.body.querySelectorAll("*")].filter((element) =>
        element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1
        && getComputedStyle(element).overflowX === "visible" && !element.closest("svg"));
      const controls = [...document.querySelectorAll("input, select, textarea, button, summary, a")];
      const empty = [...document.querySelectorAll("[data-t]")].filter((element) => !element.textContent.trim());
      return {
        words: empty.map((element) => element.dataset.t),
        wide: wide.map((element) => element.id || element.tagName),
        unreachable: controls.filter((control) => control.tabIndex < 0).map((control) => control.id),
        unnamed: controls.filter((control) => !(control.labels?.length || control.textContent.trim() || control.hidden))
          .map((control) => control.id),
        language: document.documentElement.lang,
      };"""
    found = outcome(PAGE, script, tmp_path, fragment)
    assert found["words"] == found["wide"] == found["unreachable"] == found["unnamed"] == []
    assert found["language"].startswith(language)


class Elements(HTMLParser):
    """Attributes of every element by tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(PAGE[: PAGE.index("<script>")])

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_every_field_has_a_label_and_every_word_both_languages():
    elements = Elements().found
    labelled = {attributes["for"] for tag, attributes in elements if tag == "label"}
    fields = {a["id"] for tag, a in elements if tag in ("input", "select", "textarea")}
    assert fields == labelled
    assert all(set(texts) == {"en", "zh"} and all(texts.values()) for texts in WORDS.values())
    used = {attributes["data-t"] for _, attributes in elements if "data-t" in attributes}
    script = PAGE[PAGE.index("<script>") :]
    used |= set(re.findall(r"words\.(\w+)", script))
    assert used <= set(WORDS)
    for key in WORDS:
        assert key in used or f'"{key}"' in script.replace("const WORDS", "", 1) or " " in key, key


def test_nothing_is_loaded_from_anywhere():
    assert not re.findall(r"https?://|//cdn|@import|\bsrc=|<link|fetch\(|XMLHttpRequest", PAGE)
    assert "default-src 'none'" in PAGE
