"""Every page has its Chinese twin, of the same structure; every generated text its Chinese, with the same numbers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ascend_moe.contract.defects import DEFECTS
from ascend_moe.contract.rules import RULES
from ascend_moe.diagnosis.causes import CAUSES
from ascend_moe.diagnosis.symptoms import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(ROOT / "scripts"))
from generators.texts import chinese, digest  # noqa: E402

TWIN = ".zh.md"
PAGES = sorted(path.name for path in DOCS.glob("*.md") if not path.name.endswith(TWIN))
PAIRS = [
    *((DOCS / name, DOCS / name.replace(".md", TWIN)) for name in PAGES),
    (ROOT / "README.md", ROOT / "README.zh.md"),
]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def structure(page: str) -> dict[str, list]:
    """What a reader can tell two pages apart by, whatever their language."""
    code = [block.split("\n") for block in re.findall(r"^```(.*?)^```", page, re.DOTALL | re.M)]
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.M)
    tables = re.findall(r"(?:^\|.*\n)+", prose, re.M)
    return {
        "headings": [len(level) for level in re.findall(r"^(#+) ", prose, re.M)],
        "tables": [[row.count(" |") for row in table.splitlines()] for table in tables],
        # What is typed or printed is the same; a comment may be in the page's language.
        "code": [[re.sub(r"\s*#.*", "", line) for line in block] for block in code],
        "lists": [len(re.match(r" *", item)[0]) for item in re.findall(r"^ *[*-] .", prose, re.M)],
        "images": re.findall(r"!\[[^\]]*\]\(([^)]*)\)", prose),
        "pages": sorted(
            re.sub(r"\.zh\.md", ".md", link) for link in re.findall(r"\]\(([^)#]+)", prose)
        ),
    }


def test_every_page_has_its_twin_and_nothing_else_has():
    names = {path.name.replace(TWIN, ".md") for path in DOCS.glob(f"*{TWIN}")}
    assert names == set(PAGES)


@pytest.mark.parametrize(("english", "twin"), PAIRS, ids=lambda path: path.name)
def test_twins_have_the_same_structure(english, twin):
    ours, theirs = structure(english.read_text()), structure(twin.read_text())
    for part in ours:
        assert theirs[part] == ours[part], part
    assert len(CHINESE.findall(twin.read_text())) > 100
    assert not CHINESE.search(re.sub(r"\[中文\]|`[^`]*`|docs/\S*|\S*/\S*", "", english.read_text()))


def test_a_chinese_page_leads_to_chinese_pages():
    twins = {path.name for path in DOCS.glob(f"*{TWIN}")}
    for name in twins:
        for link in re.findall(r"\]\(([\w-]+\.md)", (DOCS / name).read_text()):
            assert link.replace(".md", TWIN) not in twins, f"{name}: {link}"


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)*", text))


def pairs_of_texts():
    rules, defects, errors = chinese("rules"), chinese("defects"), chinese("errors")
    assert set(rules) == {rule.id for rule in RULES}
    assert set(defects) == {defect.id for defect in DEFECTS}
    for rule in RULES:
        english = (rule.statement, rule.note)
        yield from zip((*english, digest(*english)), rules[rule.id], strict=True)
    for defect in DEFECTS:
        english = (defect.title, defect.happens, defect.remedy, defect.versions)
        yield from zip((*english, digest(*english)), defects[defect.id], strict=True)
    said = {title for title, _ in SECTIONS}
    said |= {
        text for _, table in SECTIONS for entry in table for text in (entry.meaning, entry.advice)
    }
    said |= {text for cause in CAUSES.values() for text in (cause.says, cause.remedy)}
    assert set(errors) == said - {""}
    yield from errors.items()


def test_a_generated_text_and_its_chinese_name_the_same_numbers():
    for english, text in pairs_of_texts():
        assert bool(english) == bool(text), english
        assert numbers(english) == numbers(text), (
            english,
            text,
        )  # of a digest: that it is the same
