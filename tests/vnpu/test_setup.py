"""Getting there: what is missing is said in one line, a build happens once, a real CANN is left alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from vnpu_launch import PROGRAMS, REPOSITORY, clean_environment

from ascend_moe import native
from ascend_moe.vnpu import VirtualNpuError, activation, build, environment, wheel

COMMAND = [sys.executable, "-m", "ascend_moe", "run"]


def run_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=REPOSITORY,
        env=clean_environment() | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_script_is_missing():
    assert run_command().returncode == 2
    done = run_command("no-such-script.py")
    assert done.returncode == 2
    assert "no-such-script.py does not exist" in done.stderr


@pytest.mark.parametrize("count", ["abc", "0", "-1", "2000", "1.5"])
def test_wrong_number_of_devices(count):
    done = run_command("no-such-script.py", ASCEND_MOE_VNPU_DEVICES=count)
    assert done.returncode == 2  # the script is looked for first
    done = run_command(__file__, ASCEND_MOE_VNPU_DEVICES=count)
    assert done.returncode == 1
    wanted = (
        f"ascend-moe run: ASCEND_MOE_VNPU_DEVICES={count} devices: between 1 and 1024 are possible"
    )
    assert done.stderr.strip() == wanted


@pytest.mark.parametrize("version", ["8.5", "8.4.0", "9.2.0", "nine"])
def test_a_cann_that_is_not_played(version):
    done = run_command(__file__, ASCEND_MOE_VNPU_CANN=version)
    assert done.returncode == 1
    wanted = (
        f"ascend-moe run: ASCEND_MOE_VNPU_CANN={version} is none of the versions that are played: "
        "8.5.0, 9.0.0, 9.1.0"
    )
    assert done.stderr.strip() == wanted


@pytest.mark.usefixtures("run")
def test_a_cann_that_is_changed_to_one_that_is_not_played(tmp_path):
    """Below ``ascend-moe run``, where only the stand-in itself can say so."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os; os.environ['ASCEND_MOE_VNPU_CANN'] = '7.0.0'\n"
        "import torch, torch_npu; torch.zeros(1).npu()\n"
    )
    done = run_command(str(script))
    assert done.returncode == 1
    assert "ASCEND_MOE_VNPU_CANN=7.0.0: no CANN of that version is played here" in done.stderr


@pytest.mark.usefixtures("run")
def test_the_exit_is_the_scripts(tmp_path):
    """Its code, and a signal's; Ctrl-C reaches it as it would without us."""
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit(7)")
    assert run_command(str(script)).returncode == 7
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert run_command(str(script)).returncode == -signal.SIGTERM
    script.write_text("import signal, os; os.kill(os.getpid(), signal.SIGINT)")
    done = run_command(str(script))
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("how", ["option", "variable"])
def test_number_of_devices(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, torch_npu\n"
        "print(torch.npu.device_count())\n"
        "try: torch.npu.set_device(3)\n"
        "except RuntimeError as error: print(error)\n"
    )
    if how == "option":
        done = run_command("--devices", "3", str(script))
    else:
        done = run_command(str(script), ASCEND_MOE_VNPU_DEVICES="3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3\n")
    assert "device 3, but there are 3 devices" in done.stdout
    assert "(A3, 3 devices)" in done.stderr


def test_no_torch_npu(monkeypatch):
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        VirtualNpuError, match=r"not installed; pip install torch==2\.13\.0 torch_npu==2\.13\.0"
    ) as caught:
        wheel.installed_wheels()
    assert "\n" not in str(caught.value)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """installed(torch=, torch_npu=, libraries=): what the environment has, as far as the gate looks."""

    def install(torch, torch_npu, **libraries):
        versions = {"torch_npu": torch_npu, "torch": torch}
        (tmp_path / "lib").mkdir()
        for name, content in libraries.items():
            (tmp_path / f"lib/{name}.so").write_bytes(content)
        monkeypatch.setattr(wheel, "_package", lambda name, command: tmp_path)
        monkeypatch.setattr(wheel.metadata, "version", versions.__getitem__)

    return install


@pytest.mark.parametrize("version", wheel.TESTED)
def test_a_tested_torch_npu(installed, capsys, version):
    torch = version.partition(".post")[0]
    installed(torch, version)
    assert wheel.installed_wheels().versions == f"torch {torch} torch_npu {version}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("version", ["2.11.0", "2.10.0.post99", "2.14.0"])
def test_an_untested_torch_npu_is_tried(installed, capsys, version):
    installed(version.partition(".post")[0] + "+cpu", version)
    wheel.installed_wheels()
    said = capsys.readouterr().err
    assert said.startswith(f"ascend-moe: torch_npu {version} was not tested on the virtual NPU, ")
    assert said.count("\n") == 1


def test_a_torch_of_another_version(installed):
    installed("2.13.0+cpu", "2.10.0.post4")
    with pytest.raises(
        VirtualNpuError, match=r"needs torch 2\.10\.0, but 2\.13\.0\+cpu.*torch==2\.10\.0"
    ):
        wheel.installed_wheels()


KEY = b"..\0pinned_reserve_segment_size_mb\0.."


@pytest.mark.parametrize("version", ["2.10.0.post7", "2.14.0"])
def test_two_that_register_one_key(installed, version):
    torch = version.partition(".post")[0]
    installed(torch, version, libc10_cuda=KEY, libtorch_npu=KEY)
    with pytest.raises(VirtualNpuError, match=rf"beside a torch built for CUDA.*{torch}\+cpu"):
        wheel.installed_wheels()


@pytest.mark.parametrize(
    "libraries",
    [{"libtorch_npu": KEY}, {"libtorch_npu": KEY, "libc10_cuda": b""}, {"libc10_cuda": KEY}],
    ids=["torch for CPU", "older torch", "older torch_npu"],
)
def test_one_that_registers_it(installed, libraries):
    installed("2.10.0", "2.10.0.post4", **libraries)
    wheel.installed_wheels()


def test_a_torch_npu_that_needs_more(installed, tmp_path):
    installed("2.5.1", "2.5.1.post1")
    (tmp_path / "beyond.txt").write_text("")
    wheel.require_all_it_needs(tmp_path)
    (tmp_path / "beyond.txt").write_text("aclA\nlibb.so\n")
    with pytest.raises(VirtualNpuError, match=r"2\.5\.1\.post1 needs .*: aclA, libb\.so; pip"):
        wheel.require_all_it_needs(tmp_path)
    (tmp_path / "beyond.txt").write_text("\n".join(f"acl{number}" for number in range(20)))
    with pytest.raises(VirtualNpuError, match="acl7 and 12 more;"):
        wheel.require_all_it_needs(tmp_path)


def test_what_a_wheel_needs_beyond_is_found(compiler, tmp_path):
    """link_stubs.py on libraries made for it: a stub for each missing function, a line for each unknown name."""
    script = REPOSITORY / "kernels/standin/link_stubs.py"

    def library(name: str, source: str, *options: str) -> Path:
        path = tmp_path / name
        command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(path), *options]
        subprocess.run(command, input=source, text=True, check=True)
        return path

    (tmp_path / "wheel").mkdir()
    have = library("libascendcl.so", 'extern "C" int aclrtMalloc() { return 0; }')
    library("libacl_new.so", "int new_one;")
    declared = ("aclrtMalloc", "aclInit", "aclBrandNew", "printf")
    calls = "".join(
        f'extern "C" int {name}(); int use_{name}() {{ return {name}(); }}\n' for name in declared
    )
    need = ["-Wl,--no-as-needed", "-L", str(tmp_path), "-lascendcl", "-lacl_new"]
    library("wheel/libtorch_npu.so", calls, *need)
    output, beyond = tmp_path / "stubs.cpp", tmp_path / "beyond.txt"
    command = [sys.executable, script, output, beyond, tmp_path / "wheel", have]
    subprocess.run(command, check=True)
    assert beyond.read_text().split() == ["aclBrandNew", "libacl_new.so"]
    assert set(re.findall(r'__asm__\("(\w+)"\)', output.read_text())) == {"aclInit", "aclBrandNew"}


@pytest.mark.parametrize(
    ("tool", "hint"), [("g++", "apt-get install g++"), ("cmake", "pip install cmake")]
)
def test_no_compiler(monkeypatch, tmp_path, tool, hint):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        build, "installed_wheels", lambda: wheel.Wheels(tmp_path, tmp_path, "versions")
    )
    real = shutil.which
    missing = {"g++": tool == "g++", "cmake": True}
    stand_for = real("true")
    monkeypatch.setattr(
        native.shutil,
        "which",
        lambda name, path=None: None if missing.get(name) else stand_for,
    )
    with pytest.raises(
        VirtualNpuError, match=f"needs {re.escape(tool)}, which is not installed"
    ) as caught:
        build.virtual_npu()
    assert hint in str(caught.value)


def test_real_cann_is_left_alone(tmp_path):
    cann = tmp_path / "cann"
    cann.mkdir()
    with pytest.raises(VirtualNpuError, match=r"CANN is installed here.*--force"):
        environment.refuse_beside_real_cann({"ASCEND_HOME_PATH": str(cann)})
    ours = {"ASCEND_HOME_PATH": str(cann), environment.MARKER: str(cann)}
    environment.refuse_beside_real_cann(ours)


def test_too_late(monkeypatch):
    monkeypatch.delenv(environment.MARKER, raising=False)
    monkeypatch.setitem(sys.modules, "torch_npu", object())
    with pytest.raises(VirtualNpuError, match="has been imported"):
        activation.activate()


@pytest.mark.parametrize(("product", "devices"), [("A5", None), ("A3", 0)])
def test_unknown_wishes(product, devices):
    with pytest.raises(VirtualNpuError):
        activation.environment_of_run(product, devices)


def test_user_variables_are_extended():
    built = build.VirtualNpu(Path("/home-of-it"), Path("/vendor"))
    given = {"LD_LIBRARY_PATH": "/mine", "ASCEND_CUSTOM_OPP_PATH": "/ops", "PYTHONPATH": "/code"}
    made = environment.variables(built, given, product="A2", devices=4)
    assert made["LD_LIBRARY_PATH"] == "/home-of-it/lib64:/mine"
    assert made["ASCEND_CUSTOM_OPP_PATH"] == "/vendor:/ops"
    assert made["PYTHONPATH"].endswith(":/code")
    assert (
        environment.variables(built, given | made)["LD_LIBRARY_PATH"] == "/home-of-it/lib64:/mine"
    )


def test_builds_do_not_overlap(monkeypatch, tmp_path):
    """Two processes want the same part: one builds, the other waits and finds it."""
    program = """
import sys, time
from pathlib import Path
from ascend_moe.vnpu import build
def slow(chain, room, scratch, home, cmake):
    (scratch / "installed").mkdir()
    time.sleep(0.5)
    (scratch / "installed" / "who").write_text(sys.argv[2])
    return scratch / "installed"
build._build, build._tool = slow, lambda name, command: name
print((build._part(None, "standin", Path(sys.argv[1]), None) / "who").read_text())
"""
    target = str(tmp_path / "part")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, target, str(number)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in results}) == 1
    assert sum("building" in err for _, err in results) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "part.lock"]


def test_spawned_processes_and_hidden_sitecustomize(run, tmp_path):
    """spawn finds the stand-in, one announcement for all, and the user's own sitecustomize still runs."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['MINE'] = 'ran'\n")
    paths = f"{REPOSITORY}{os.pathsep}{tmp_path}"
    done = run("spawned.py", environment={"PYTHONPATH": paths}, fresh=True)
    assert "3 processes, mine ran" in done.stdout
    assert done.stdout.count("virtual NPU (") == 1


def test_activate_in_a_process(run):
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "activated.py")],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ascend910B3 4" in done.stdout
