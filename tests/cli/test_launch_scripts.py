"""`ascend-moe buffsize SCRIPT..`, and the pre-commit hook that is made of it."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from ascend_moe.cli import main
from ascend_moe.sizing.launch_scripts import settings

ROOT = Path(__file__).resolve().parents[2]
HOOK = ROOT / ".pre-commit-hooks.yaml"
SIZES = [
    "--product",
    "A3",
    "--max-bs",
    "64",
    "--hidden",
    "7168",
    "--topk",
    "8",
    "--ep",
    "16",
    "--experts",
    "256",
]

SCRIPTS = {
    "run.sh": (
        "export HCCL_BUFFSIZE=1024\n# export HCCL_BUFFSIZE=bad\nHCCL_BUFFSIZE='512MB' python serve.py\n"
        "export HCCL_BUFFSIZE=$SIZE HCCL_BUFFSIZE_EP=3\nexport HCCL_BUFFSIZE=${SIZE:-512}\n"
        'docker run -e HCCL_BUFFSIZE=300 image\n[ "$HCCL_BUFFSIZE" = 7 ]\n',
        [(1, "1024"), (3, "512MB"), (6, "300")],
    ),
    "pod.yaml": (
        'env:\n  - name: HCCL_BUFFSIZE\n    value: "477"\n  - name: OTHER\n    value: "5"\nHCCL_BUFFSIZE: 200\n',
        [(3, "477"), (6, "200")],
    ),
    "Dockerfile": (
        "ENV HCCL_BUFFSIZE 1048576\nENV A=1 HCCL_BUFFSIZE=64\n",
        [(1, "1048576"), (2, "64")],
    ),
    "launch.py": (
        'os.environ["HCCL_BUFFSIZE"] = "0"\nenv = {"HCCL_BUFFSIZE": "2"}\nos.environ["HCCL_BUFFSIZE"] = str(mb)\n'
        'if os.environ["HCCL_BUFFSIZE"] == "9":\n    os.environ.get("HCCL_BUFFSIZE", "9")\n'
        'os.environ["HCCL_BUFFSIZE"] = f"{mb}"\n',
        [(1, "0"), (2, "2")],
    ),
    "vars.json": ('{"HCCL_BUFFSIZE": "-1", "HCCL_BUFFSIZE_OTHER": 3}\n', [(1, "-1")]),
}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    for name in ("HCCL_BUFFSIZE", "ASCEND_MOE_PRODUCT", "ASCEND_MOE_CONTRACT"):
        monkeypatch.delenv(name, raising=False)
    for name, (text, _) in SCRIPTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_sets(scripts, name):
    assert settings(scripts / name) == SCRIPTS[name][1]


def test_without_sizes_only_what_hccl_cannot_mean_is_wrong(scripts, capsys):
    assert main(["buffsize", *(str(scripts / name) for name in SCRIPTS)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [re.match(r"\S+/([\w.]+:\d+): HCCL_BUFFSIZE='", line)[1] for line in said] == [
        "run.sh:3",
        "Dockerfile:1",
        "launch.py:1",
        "vars.json:1",
    ]
    assert "EI0001" in said[0]
    assert "MB, not KB or bytes" in said[1]


def test_with_sizes_what_is_too_small_is_wrong_too(scripts, capsys):
    assert main(["buffsize", *SIZES, str(scripts / "pod.yaml")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "pod.yaml:3: HCCL_BUFFSIZE='477': HCCL_BUFFSIZE is too SMALL; needed: 478 MB" in said[0]
    (scripts / "pod.yaml").write_text('HCCL_BUFFSIZE: "478"\n')
    assert main(["buffsize", *SIZES, str(scripts / "pod.yaml")]) == 0
    assert capsys.readouterr().out == ""


def test_a_file_that_cannot_be_read_is_said(tmp_path, capsys):
    assert main(["buffsize", str(tmp_path / "none.sh")]) == 2
    assert capsys.readouterr().err.startswith("ascend-moe buffsize: cannot read ")


def test_the_hook_needs_nothing_but_python(scripts):
    """As pre-commit runs a hook of language script: its entry out of the clone, then args, then the files."""
    hook = HOOK.read_text()
    entry = re.search(r"entry: (\S+)", hook)[1]
    pattern = re.compile(re.search(r"files: (.+)", hook)[1])
    files = sorted(path for path in scripts.iterdir() if pattern.search(path.name))
    assert len(files) == len(SCRIPTS)
    isolated = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", ROOT / entry]
    done = subprocess.run([*isolated, *SIZES, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert len(done.stdout.splitlines()) == 9
    config = scripts / "config.json"
    config.write_text(json.dumps({"hidden_size": 64, "num_experts": 8, "num_experts_per_tok": 2}))
    done = subprocess.run([*isolated, scripts / "pod.yaml"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
