"""The GitHub workflow names scripts, presets and tests that exist; GitHub itself is not asked."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ascend_moe.cli import COMMANDS
from ascend_moe.hardware.build import OLDEST_CANN

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
yaml = pytest.importorskip("yaml")


def steps() -> list[tuple[str, str]]:
    """(workflow and job, the commands of a step)."""
    return [
        (f"{path.name} {name}", step["run"])
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text())["jobs"].items()
        for step in job["steps"]
        if "run" in step
    ]


def test_there_is_a_workflow():
    assert [path.name for path in WORKFLOWS] == [
        "ci.yml",
        "compatibility.yml",
        "pages.yml",
        "release.yml",
    ]


@pytest.mark.parametrize(("job", "run"), steps())
def test_what_a_step_names_exists(job, run):
    for name in re.findall(r"(?:^|[\s=])(?:\./)?(scripts/\w+)", run):
        assert os.access(ROOT / name, os.X_OK), f"{job}: {name}"
    for name in re.findall(r"\b(?:tests|docs|examples)(?:/[\w./-]+)?", run):
        assert (ROOT / name).exists(), f"{job}: {name}"
    for name in re.findall(r"-m ascend_moe (\w+)", run):
        assert name in COMMANDS, f"{job}: ascend-moe {name}"


def test_presets_are_defined_and_built():
    presets = json.loads((ROOT / "kernels/CMakePresets.json").read_text())
    defined = {preset["name"] for preset in presets["configurePresets"] if "hidden" not in preset}
    built = set(re.findall(r"build_kernels ([\w-]+)", "\n".join(run for _, run in steps())))
    assert built == defined


def test_options_of_npu_check_exist():
    source = (ROOT / "scripts/hardware_kit/arguments.py").read_text()
    known = set(re.findall(r'"(--[\w-]+)"', source))
    for job, run in steps():
        for line in run.splitlines():
            if "scripts/npu_check" in line:
                assert set(re.findall(r"--[\w-]+", line)) <= known, job


def test_images_are_those_the_build_accepts():
    """Tags as Ascend/cann-container-image writes them: CANN, chip, system, Python."""
    path = ROOT / ".github/workflows/ci.yml"
    job = yaml.safe_load(path.read_text())["jobs"]["npu-a3"]
    assert job["container"]["image"].startswith("quay.io/ascend/cann:")
    tag = re.compile(r"(\d+)\.(\d+)\.\d+-a3-ubuntu22\.04-py3\.1[0-3]")
    versions = [tag.fullmatch(image) for image in job["strategy"]["matrix"]["image"]]
    assert all(versions)
    found = {(int(version[1]), int(version[2])) for version in versions if version}
    assert min(found) == OLDEST_CANN
    assert max(found)[0] >= 9
