"""scripts/install_vnpu in an empty environment, and that the container file and the action are made of it."""

from __future__ import annotations

import faulthandler
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/install_vnpu"
yaml = pytest.importorskip("yaml")


def run(*words, env=None, cwd=None, timeout=60):
    """The command, with all that it starts ended when it takes too long."""
    command = list(map(str, words))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=env, cwd=cwd, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def test_the_action_is_the_script():
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = action["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 2
    for script in scripts:
        assert '"$GITHUB_ACTION_PATH/scripts/install_vnpu"' in script
    for step in steps:
        for name in re.findall(r"inputs\.(\w+)", str(step)):
            assert name in action["inputs"]
    cached = next(step for step in steps if "uses" in step)
    assert cached["with"]["path"] == "~/.cache/ascend-moe"  # where the build puts it


def test_the_key_changes_with_what_is_built(tmp_path):
    for name in ("kernels", "ascend_moe/vnpu"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("build", "__pycache__")
        )
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    copy = tmp_path / "scripts/install_vnpu"
    env = os.environ | {"PYTHON": sys.executable}
    first = run(copy, "--key", env=env).stdout
    assert re.fullmatch(r"ascend-moe-vnpu-\w+-torch_npu2\.13\.0-cp3\d+-[0-9a-f]{16}\n", first)
    assert run(copy, "--key", "2.10.0.post4", env=env).stdout != first
    with (tmp_path / "kernels/op_api/group.cpp").open("a") as source:
        source.write("// another\n")
    assert run(copy, "--key", env=env).stdout != first


def test_what_is_missing_is_said(tmp_path):
    for tool in ("bash", "dirname", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = run(SCRIPT, env={"PATH": str(tmp_path), "PYTHON": sys.executable})
    assert (done.returncode, done.stdout) == (1, "")
    assert "missing: g++ cmake" in done.stderr
    assert run(SCRIPT, "latest").returncode == 2


def test_a_tag_says_what_is_inside():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    tag = run(ROOT / "docker/build", "--tag").stdout.strip()
    assert tag == f"{version}-vnpu-torch_npu2.13.0-bookworm-py3.11"
    other = run(
        ROOT / "docker/build",
        "--torch_npu",
        "2.10.0.post4",
        "--os",
        "trixie",
        "--python",
        "3.10",
        "--tag",
    )
    assert other.stdout.strip() == f"{version}-vnpu-torch_npu2.10.0.post4-trixie-py3.10"
    for page in ("docs/ci.md", "docs/ci.zh.md"):
        assert tag in (ROOT / page).read_text()


def test_the_container_file_is_the_script():
    steps = (ROOT / "docker/Dockerfile").read_text()
    assert "/tmp/ascend-moe/scripts/install_vnpu" in steps
    assert "apt-get install -y --no-install-recommends g++ cmake" in steps
    told = re.findall(r"--build-arg \"(\w+)=", (ROOT / "docker/build").read_text())
    assert sorted(told) == sorted(re.findall(r"^ARG (\w+)=", steps, re.M))


def of_the_container(folder: Path) -> Path:
    """What .dockerignore lets through."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            source, target = ROOT / line[1:], folder / line[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.so", "build")
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
    return folder


@pytest.mark.ci
def test_an_empty_environment(tmp_path):
    """A new venv and home, the system's tools, and the files of the container.

    Only torch and torch_npu, which are gigabytes, are those of this environment, and the build is taken from this
    user's cache where it is there.
    """
    faulthandler.cancel_dump_traceback_later()  # its limit is for tests that hang; a build takes minutes
    clone = of_the_container(tmp_path / "clone")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin/python"
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
    ).stdout.strip()
    # Behind the new environment's own packages; this clone is not among them.
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "ascend_moe" not in entry.name and not entry.name.endswith(".pth"):
            (borrowed / entry.name).symlink_to(entry)
    (Path(purelib) / "borrowed.pth").write_text(f"{borrowed}\n")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    # The compiler as it is found here, because which one it is belongs to the name of a build.
    here = Path(sys.executable).parent
    theirs = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != here]
    tools = os.pathsep.join([str(environment / "bin"), *theirs])
    if shutil.which("cmake", path=tools) is None or shutil.which("g++", path=tools) is None:
        pytest.skip("the system has no g++ or cmake of its own")
    env = {"PATH": tools, "HOME": str(tmp_path), "XDG_CACHE_HOME": cache, "PYTHON": str(python)}
    env |= {name: os.environ[name] for name in os.environ if name.startswith("PIP_")}
    done = run(clone / "scripts/install_vnpu", env=env, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "virtual NPU: 2.0"
    where = run(
        python, "-c", "import ascend_moe; print(ascend_moe.__file__)", env=env, cwd=tmp_path
    )
    assert where.stdout.startswith(str(environment))
