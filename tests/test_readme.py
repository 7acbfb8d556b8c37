"""The example of docs/usage.md, run as a reader would; and that the README is short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def example(name: str) -> str:
    text = (ROOT / name).read_text()
    block = text.split("<!-- example:start -->")[1].split("<!-- example:end -->")[0]
    return block.split("```python\n")[1].split("```")[0]


def test_both_languages_hold_the_same_example():
    assert example("docs/usage.md") == example("docs/usage.zh.md")


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_readme_is_short_and_its_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) < 80
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["docs/usage.md"])
def test_example_runs(name: str, tmp_path: Path):
    script = tmp_path / "example.py"
    script.write_text(example(name))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        launch,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
