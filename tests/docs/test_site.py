"""scripts/docs builds the documentation from a fresh clone, in both languages, and finds a link that leads nowhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
from documentation.links import broken  # noqa: E402

ENGLISH = [path.stem for path in (ROOT / "docs").glob("*.md") if not path.name.endswith(".zh.md")]


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "en").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="en/page.html#part"></a><a href="#top"></a><img src="plot.svg">'
        '<a href="https://example.org/none"></a><a href="en/page.html#ep=16&amp;max_bs=8"></a>'
    )
    (tmp_path / "plot.svg").touch()
    (tmp_path / "en/page.html").write_text('<p id="part"><a href="../index.html#top"></a></p>')
    assert broken(tmp_path) == []
    (tmp_path / "en/page.html").write_text(
        '<a href="none.html"></a><a href="../index.html#none"></a>'
    )
    assert broken(tmp_path) == [
        "en/page.html: none.html",
        "en/page.html: ../index.html#none",
        "index.html: en/page.html#part",
    ]


def test_every_page_is_in_the_navigation():
    """mkdocs fails for one that is not, but only where it runs."""
    named = re.findall(r"- ([\w-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(named) == sorted(ENGLISH)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What a fresh clone builds."""
    clone = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    done = subprocess.run(
        ["scripts/docs"], cwd=clone, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return clone / "site"


@pytest.mark.ci
def test_pages_of_both_languages(site):
    for name in ENGLISH:
        for folder, language in ((site, "zh"), (site / "en", "en")):
            page = (folder / f"{name}.html").read_text()
            assert f'<html lang="{language}"' in page, name
            # The switch of languages leads to the same page.
            other = f'"en/{name}.html"' if language == "zh" else f'"../{name}.html"'
            assert f"href={other}" in page or name == "index", name
            # Nothing is loaded from elsewhere.
            loaded = re.findall(
                r'(?:src=|<link rel="(?:stylesheet|icon)" href=)"(https?:[^"]*)', page
            )
            assert loaded == [], name
    assert (site / "calculator.html").read_text() == (ROOT / "docs/calculator.html").read_text()
    assert (site / "llms.txt").exists()


@pytest.mark.ci
def test_search_in_both_languages(site):
    chinese = json.loads((site / "search/search_index.json").read_text())
    english = json.loads((site / "en/search/search_index.json").read_text())
    assert (chinese["config"]["lang"], english["config"]["lang"]) == (["zh", "en"], ["en"])
    assert any("缓冲区" in entry["text"] for entry in chinese["docs"])
    assert any("buffer" in entry["text"] for entry in english["docs"])
    assert not any("缓冲区" in entry["text"] for entry in english["docs"])


@pytest.mark.ci
def test_one_anchor_per_rule_and_error(site):
    from generators.constraints import anchor
    from generators.errors import place

    from ascend_moe.contract.rules import RULES
    from ascend_moe.diagnosis.symptoms import CATALOGUE

    for folder in (site, site / "en"):
        rules, errors = (
            (folder / name).read_text() for name in ("constraints.html", "errors.html")
        )
        for rule in RULES:
            assert rules.count(f' id="{anchor(rule.id)}"') == 1
        for name in CATALOGUE:
            assert errors.count(f' id="{place(name)}"') == 1, name
