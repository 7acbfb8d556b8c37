"""The build of the kernel library for the NPU, as far as it goes without CANN."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hardware import fake_cann

from ascend_moe.hardware import build, kernel_library
from ascend_moe.native import BuildError

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "kernels"

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") and shutil.which("cmake")), reason="needs g++ and cmake"
)
needs_headers = pytest.mark.skipif(
    fake_cann.acl_headers() is None, reason="needs the headers in the torch_npu wheel"
)


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """The shell of somebody with CANN, and an empty cache."""
    home = tmp_path / "cann"
    log = fake_cann.make(home)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ASCEND_MOE_VNPU", raising=False)
    return log


def presets():
    return json.loads((KERNELS / "CMakePresets.json").read_text())


def test_presets_are_the_documented_ones():
    names = {preset["name"] for preset in presets()["configurePresets"]}
    assert names == {"host", "npu", *kernel_library.PRESETS.values()}  # npu: what the two share
    assert {preset["configurePreset"] for preset in presets()["buildPresets"]} == names - {"npu"}


@needs_compiler
def test_nothing_is_missing_with_a_toolkit(toolkit):
    assert build.missing(os.environ) == []


@needs_compiler
@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda home: shutil.rmtree(home), "toolkit, 8.5 or later"),
        (
            lambda home: (home / "compiler/version.info").write_text("Version=8.3.RC1\n"),
            "is 8.3.RC1",
        ),
        (lambda home: next(home.rglob("asc-config.cmake")).unlink(), "CMake package for AscendC"),
        (lambda home: next(home.rglob("bisheng")).unlink(), "the compiler bisheng"),
    ],
    ids=["toolkit", "version", "package", "compiler"],
)
def test_says_what_is_missing(toolkit, break_it, text, capsys):
    break_it(toolkit.parent)
    assert build.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line


def test_the_stand_in_is_no_toolkit(toolkit, monkeypatch):
    monkeypatch.setenv("ASCEND_MOE_VNPU", str(toolkit.parent))
    assert "stand-in" in build.missing(os.environ)[0]


def test_an_environment_that_was_not_sourced(toolkit, monkeypatch):
    monkeypatch.delenv("ASCEND_HOME_PATH")
    monkeypatch.setattr("ascend_moe.hardware.cann.DEFAULT_HOMES", (str(toolkit.parent),))
    assert build.missing(os.environ)[0].endswith(f"source {toolkit.parent}/set_env.sh")


@pytest.mark.ci
@needs_compiler
@needs_headers
@pytest.mark.parametrize(  # 9.0.0: the next test
    ("version", "acl", "preset"),
    [("8.5.0", "ascendcl", "npu-a3"), ("9.1.0", "acl_rt", "npu-a2")],
)
def test_the_preset_configures_compiles_and_links(tmp_path, monkeypatch, version, acl, preset):
    """Also where libascendcl has gone."""
    log = fake_cann.make(tmp_path / "cann", version=version)
    fake_cann.add_runtime(tmp_path / "cann", acl)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "cann"))
    assert build.missing(os.environ) == []
    tree, installed = tmp_path / "tree", tmp_path / "installed"
    configure = ["cmake", "--preset", preset, "-B", tree, f"-DCMAKE_INSTALL_PREFIX={installed}"]
    for command in (
        configure,
        ["cmake", "--build", tree, "--parallel", "2"],
        ["cmake", "--install", tree],
    ):
        done = subprocess.run(
            command, cwd=KERNELS, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (installed / kernel_library.VENDOR / kernel_library.LIBRARY).is_file()
    (linked,) = [line.split() for line in log.read_text().splitlines() if "-lnnopbase" in line]
    assert {"-lascendcl", "-lacl_rt"} & set(linked) == {f"-l{acl}"}
    (compiled,) = [line.split() for line in log.read_text().splitlines() if " -c " in line]
    assert compiled[-1].endswith("kernels/npu/launch.asc")
    assert {"--npu-arch=dav-2201", "-O3", "-fPIC"} <= set(compiled)


@needs_compiler
@needs_headers
def test_a_build_is_installed_and_a_broken_one_replaces_nothing(toolkit, capsys):
    fake_cann.add_runtime(toolkit.parent)
    assert build.main([]) == 0
    vendor = kernel_library.installed_vendor()
    assert vendor is not None
    assert str(vendor) in capsys.readouterr().out
    record = {"sources": kernel_library.source_key(), "cann": "9.0.0", "preset": "npu-a3"}
    assert kernel_library.built_from() == record

    compiler = next(toolkit.parent.rglob("bisheng"))
    compiler.write_text("#!/bin/sh\necho 'error: broken compiler' >&2; exit 1\n")
    assert build.main([]) == 1
    assert "broken compiler" in capsys.readouterr().err
    assert kernel_library.built_from() == record
    left = {path.name for path in kernel_library.installation().parent.iterdir()}
    assert left == {"npu-a3", "npu-a3.lock"}


def test_each_product_has_its_own_library(toolkit, monkeypatch):
    """By ASCEND_MOE_PRODUCT, else by the chip that is here, else that of A3."""
    assert kernel_library.installation().name == "npu-a3"
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A2")
    assert kernel_library.installation().name == "npu-a2"
    assert kernel_library.installation("A3").name == "npu-a3"
    library = kernel_library.installation() / kernel_library.VENDOR / kernel_library.LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    assert kernel_library.installed_vendor() is not None
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A3")
    assert kernel_library.installed_vendor() is None


def test_the_product_can_be_named(toolkit, capsys):
    shutil.rmtree(toolkit.parent)
    assert build.main(["--product", "A2", "--check"]) == 1
    assert "build_kernels npu-a2: missing: CANN's toolkit" in capsys.readouterr().err


@needs_compiler
def test_a_library_without_the_operators_replaces_nothing(toolkit, tmp_path):
    source, library = tmp_path / "empty.cpp", tmp_path / "libcust_opapi.so"
    source.write_text('extern "C" int aclnnMoeDistributeDispatchV2() { return 0; }\n')
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(BuildError, match="lacks aclnn dispatch V2, V3, V4"):
        build.require_operators(library)
    assert kernel_library.installed_vendor() is None


def test_the_script_names_its_presets():
    script = ROOT / "scripts/build_kernels"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [script, "gpu"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "host, npu-a2 or npu-a3" in done.stderr


def test_the_script_says_what_the_host_build_lacks(tmp_path):
    """Without any tool on the path: one line, no traceback."""
    environment = {"PYTHON": sys.executable, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [shutil.which("bash"), ROOT / "scripts/build_kernels", "host"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("build_kernels host: the virtual NPU")
