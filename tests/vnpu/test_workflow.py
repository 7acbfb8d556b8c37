"""The GitHub workflow of docs/virtual-npu.md: what its steps run, run here for a small project with tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vnpu_launch import REPOSITORY, clean_environment

yaml = pytest.importorskip("yaml")  # comes with torch_npu
TESTS = """
import torch
import torch.distributed as dist
import torch_npu


def layer():
    if not dist.is_initialized():
        dist.init_process_group("hccl", init_method="tcp://127.0.0.1:29531", rank=0, world_size=1)
    group = dist.group.WORLD._get_backend(torch.device("npu")).get_hccl_comm_name(0)
    x = torch.ones(4, 1024, dtype=torch.bfloat16).npu()
    ids = torch.tensor([[0, 1]] * 4).int().npu()
    out = torch_npu.npu_moe_distribute_dispatch_v2(x, ids, group, 1, 0, 2)
    weights = torch.full((4, 2), 0.5).npu()
    return torch_npu.npu_moe_distribute_combine_v2(out[0], ids, out[2], out[4], weights, group, 1, 0, 2)


def test_layer():
    assert layer().cpu().eq(1).all()


def test_synchronisation():
    assert torch_npu.npu.synchronize() is None
    assert layer().cpu().eq(1).all()
"""


def workflow() -> dict[str, Any]:
    text = (REPOSITORY / "docs/virtual-npu.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    return yaml.safe_load(block)


def steps() -> list[dict[str, Any]]:
    return workflow()["jobs"]["moe"]["steps"]


def test_versions_are_the_pinned_ones():
    (install,) = [step["run"] for step in steps() if "Install" in step.get("name", "")]
    pinned = (REPOSITORY / "requirements-npu.txt").read_text()
    pinned += (REPOSITORY / "requirements.txt").read_text()
    for package in ("torch", "torch_npu"):
        (wanted,) = re.findall(rf"(?m)^{package}==(\S+)", pinned)
        assert f"{package}=={wanted}" in install


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("step", [one for one in steps() if "tests/moe" in one.get("run", "")])
def test_test_steps_pass(step: dict[str, Any], tmp_path: Path):
    folder = tmp_path / "tests/moe"
    folder.mkdir(parents=True)
    (folder / "test_layer.py").write_text(TESTS)
    environment = clean_environment() | step["env"]
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "virtual NPU" in done.stderr
    assert re.search(r"\b[12] passed", done.stdout)
