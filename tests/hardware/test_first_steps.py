"""The first steps of scripts/npu_check: every finding, made to happen once.

Most faults are those of a fake library, which needs neither a device nor the virtual NPU; that the real library passes
is in test_npu_check.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hardware import fake_cann

from ascend_moe.hardware import kernel_library
from ascend_moe.hardware.product import Present

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "scripts"))

from hardware_kit import (  # noqa: E402
    command,
    findings,
    first_steps,
    server_findings,
    supervisor,
)
from hardware_kit.findings import ADVICE, judge  # noqa: E402
from hardware_kit.probe_rank import row_of  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

# Faults of the fake library, by the step that finds them.
FAULTS = {
    "launch": (
        "launch-fails",
        "launch-errors-lost",
        "launch-error-without-text",
        "launch-error-sticks",
    ),
    "cores": (
        "rank-failed",
        "sync-all-hangs",
        "blocks-missing",
        "blocks-repeated",
        "blocks-misnumbered",
        "sync-all-not-seen",
        "counter-stands-still",
    ),
    "row": ("no-communicator", "no-windows", "row-not-arrived", "row-differs"),
    "timeout": (
        "absent-rank-not-noticed",
        "no-record",
        "record-names-another",
        "no-record-file",
    ),
}
COMPILE = ("no-virtual-npu", "other-product", "cannot-build", "does-not-compile")
LOAD = ("not-found", "does-not-load", "not-ours", "other-library")
JUDGED = ("counter-not-50-mhz", "gives-up-late")


def build(folder: Path, *options: str) -> Path:
    """A vendor directory with a fake library, and its folder as one of CANN's for libhccl.so."""
    library = folder / "vendors/ascend_moe/op_api/lib/libcust_opapi.so"
    library.parent.mkdir(parents=True)
    source = HERE / "fake_probes.cpp"
    flags = ["-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden"]
    subprocess.run(["g++", *flags, *options, source, "-o", library], check=True)
    (library.parent / "libhccl.so").symlink_to(library)
    return folder / "vendors/ascend_moe"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    return build(tmp_path_factory.mktemp("fake"))


@pytest.fixture
def with_library(monkeypatch, tmp_path):
    """``with_library(vendor)``: the shell of somebody whose virtual NPU has this library and nothing else."""
    monkeypatch.setattr(supervisor, "GRACE_S", 0.3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("LOCAL_RANK", "ASCEND_OPP_PATH", "HCCL_BUFFSIZE", "ASCEND_HOME_PATH", "FAULT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASCEND_MOE_VNPU", str(tmp_path))

    def use(vendor: Path) -> None:
        monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(vendor))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(vendor / "op_api/lib"))

    return use


def check(tmp_path: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """The kit to its end: exit code and the outcomes in its report."""
    report = tmp_path / "report.json"
    code = command.main("", ["--ranks", "2", "--first-steps", "--json", str(report), *arguments])
    found = json.loads(report.read_text())
    assert found["good"] is (code == 0)
    report.unlink()
    assert not list(tmp_path.glob("ascend-moe-npu-check-*"))
    return code, found["first_steps"]


def test_every_finding_is_made_to_happen():
    made = [finding for faults in FAULTS.values() for finding in faults]
    between = list(server_findings.ADVICE)  # test_server_steps.py
    assert sorted([*made, *COMPILE, *LOAD, *JUDGED, *between]) == sorted(ADVICE)


def test_every_finding_is_in_the_documentation():
    page = (ROOT / "docs/hardware.md").read_text()
    assert [name for name in ADVICE if f"`{name}`" not in page] == []
    assert [name for name in first_steps.ALL_NAMES if f"`{name}`" not in page] == []


def test_all_is_well(with_library, vendor, tmp_path, capsys):
    with_library(vendor)
    code, outcomes = check(tmp_path)
    assert code == 0
    assert [outcome["step"] for outcome in outcomes] == list(first_steps.NAMES)
    assert {outcome["finding"] for outcome in outcomes} == {""}
    said = capsys.readouterr().out
    assert said.count(" ok ") == 6
    assert "4 blocks, each once" in said


@pytest.mark.parametrize(
    ("step", "finding"), [(step, finding) for step, found in FAULTS.items() for finding in found]
)
def test_a_fault_stops_the_kit(with_library, vendor, tmp_path, monkeypatch, capsys, step, finding):
    with_library(vendor)
    monkeypatch.setenv("FAULT", finding)
    code, outcomes = check(tmp_path, "--from", step)
    assert code == 1
    assert [outcome["finding"] for outcome in outcomes] == [finding]
    assert outcomes[0]["evidence"].startswith("rank ")
    said = capsys.readouterr().out
    assert f"FINDING  {finding}: " in said
    assert ADVICE[finding] in said


@pytest.mark.parametrize(
    ("option", "finding"), [("-DNO_MARK", "not-ours"), ("-DNO_PROBES", "other-library")]
)
def test_another_library(with_library, tmp_path, option, finding):
    with_library(build(tmp_path, option))
    code, (outcome,) = check(tmp_path, "--from", "load")
    assert (code, outcome["finding"]) == (1, finding)
    missing = "ascend_moe_library_version" if finding == "not-ours" else "ascend_moe_probe_cores"
    assert missing in outcome["evidence"]


def test_a_library_that_needs_what_is_not_there(with_library, tmp_path):
    needed = tmp_path / "libascendcl.so"
    empty = ["g++", "-shared", "-x", "c++", "/dev/null"]
    subprocess.run([*empty, "-o", needed, f"-Wl,-soname,{needed.name}"], check=True)
    vendor = build(tmp_path, "-Wl,--no-as-needed", str(needed))
    needed.unlink()
    with_library(vendor)
    code, (outcome,) = check(tmp_path, "--from", "load")
    assert (code, outcome["finding"]) == (1, "does-not-load")
    assert "libascendcl.so: cannot open shared object file" in outcome["evidence"]


def test_no_library_on_the_search(with_library, tmp_path):
    with_library(tmp_path)
    code, (outcome,) = check(tmp_path, "--from", "load")
    assert (code, outcome["finding"]) == (1, "not-found")


def test_the_versions_of_the_packages(with_library, vendor, tmp_path, monkeypatch):
    """CANN 9 installs them apart; what a deployment mixes is in the report."""
    for name, version in (("runtime", "9.0.1"), ("hcomm", "9.1.0-beta.1")):
        info = tmp_path / "share/info" / name / "version.info"
        info.parent.mkdir(parents=True)
        info.write_text(f"# of the package\nVersion={version}\ntimestamp=20260101\n")
    with_library(vendor)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setattr(first_steps, "STEPS", first_steps.STEPS[1:2])
    monkeypatch.setattr(first_steps, "NAMES", ("load",))
    code, (outcome,) = check(tmp_path, "--from", "load")
    assert code == 0
    assert outcome["evidence"].endswith("; hcomm 9.1.0-beta.1, runtime 9.0.1")


def test_under_torchrun_all_supervisors_stop(with_library, vendor, tmp_path, monkeypatch):
    """One per rank, who speak through files; the finding is that of rank 0's."""
    with_library(vendor)
    monkeypatch.setenv("FAULT", "row-differs")
    found = {}

    def one(rank: int) -> None:
        ranks = supervisor.Ranks([rank], 2, patience_s=60)
        found[rank] = first_steps.play(first_steps.Kit(ranks, tmp_path, None, False, "A3"), "load")

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    assert found[0] == found[1]
    assert [outcome.finding for outcome in found[0]] == ["", "", "", "row-differs"]
    assert found[0][-1].evidence == "rank 1: 1 of 512 bytes differ, the first is number 17"


def test_a_rank_that_ends_leaves_its_log(with_library, vendor, tmp_path, monkeypatch):
    with_library(vendor)
    monkeypatch.setenv("FAULT", "no-communicator")
    _, (outcome,) = check(tmp_path, "--from", "row")
    assert outcome["evidence"] == "rank 1: HcclCommInitRootInfo returned 4: EI0006: no socket"
    assert "Traceback" in outcome["log"]


# The first step, with the toolkit of fake_cann.py.


@pytest.fixture
def compiling(monkeypatch, tmp_path):
    """``compiling()`` -> exit code and outcome of the step, for somebody with CANN and an empty cache."""
    home = tmp_path / "cann"
    fake_cann.make(home)
    for name in ("ASCEND_MOE_VNPU", "ASCEND_CUSTOM_OPP_PATH", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(first_steps, "STEPS", first_steps.STEPS[:1])
    monkeypatch.setattr(first_steps, "present_product", lambda: Present("A3", "Ascend910_93"))

    def run(*arguments: str) -> tuple[int, dict[str, str]]:
        code, (outcome,) = check(tmp_path, *arguments)
        return code, outcome

    return run


def install(**record: str) -> None:
    library = kernel_library.installation() / kernel_library.VENDOR / kernel_library.LIBRARY
    library.parent.mkdir(parents=True, exist_ok=True)
    library.touch()
    built = {"sources": kernel_library.source_key(), "cann": "9.0.0", "preset": "npu-a3"}
    (kernel_library.installation() / kernel_library.BUILT).write_text(json.dumps(built | record))


def failing_cmake(tmp_path: Path, monkeypatch) -> None:
    """A build that fails as bisheng would let it."""
    script = tmp_path / "bin/cmake"
    script.parent.mkdir()
    error = "publish.h:73: error: cast between floating and unsigned integer variable"
    script.write_text(
        "#!/bin/sh\ncase $1 in --version) echo 'cmake version 3.25.0'; exit 0;; esac\n"
        f"echo 'Building ASC object'\necho '{error}'\necho 'make: *** Error 1'\nexit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def test_a_library_of_these_sources_is_not_built_again(compiling):
    install()
    code, outcome = compiling()
    assert (code, outcome["finding"]) == (0, "")
    assert kernel_library.source_key() in outcome["evidence"]


@pytest.mark.parametrize(
    ("record", "arguments", "why"),
    [
        (None, [], "no library is installed"),
        ({"sources": "0"}, [], "from other sources (0)"),
        ({"cann": "8.5.0"}, [], "built with CANN 8.5.0, here is 9.0.0"),
        ({}, ["--rebuild"], "asked for by --rebuild"),
    ],
    ids=["none", "sources", "cann", "asked"],
)
def test_when_it_is_built(compiling, monkeypatch, record, arguments, why):
    if record is not None:
        install(**record)
    monkeypatch.setattr(first_steps.build, "missing", lambda env: ["the compiler bisheng"])
    code, outcome = compiling(*arguments)
    assert (code, outcome["finding"]) == (1, "cannot-build")
    assert why in outcome["evidence"]
    assert "the compiler bisheng" in outcome["evidence"]


def test_the_first_error_of_the_compiler(compiling, tmp_path, monkeypatch):
    failing_cmake(tmp_path, monkeypatch)
    code, outcome = compiling()
    assert (code, outcome["finding"]) == (1, "does-not-compile")
    expected = "publish.h:73: error: cast between floating and unsigned integer variable"
    assert outcome["evidence"] == expected
    assert "Building ASC object" in outcome["log"]


@pytest.mark.parametrize("chip", ["Ascend910B", None], ids=["A2", "310P"])
def test_another_product(compiling, monkeypatch, chip):
    def present() -> Present:
        if chip is None:
            raise ValueError("Ascend310P is neither A2 (Ascend910B) nor A3 (Ascend910_93)")
        return Present("A2", chip)

    monkeypatch.setattr(first_steps, "present_product", present)
    code, outcome = compiling()
    assert (code, outcome["finding"]) == (1, "other-product")
    assert "A2" in outcome["evidence"]


def test_a_virtual_npu_that_cannot_be_built(compiling, monkeypatch):
    def refuse(virtual, phases, product, servers):
        raise first_steps.NotPossible("the virtual NPU needs g++")

    monkeypatch.setattr(first_steps, "base_environment", refuse)
    monkeypatch.setenv("ASCEND_MOE_VNPU", "here")
    code, outcome = compiling()
    assert (code, outcome["finding"]) == (1, "no-virtual-npu")


# What takes too long to make happen, or happens on hardware only.


def report_of(core: int, mark: int, ticks: int) -> list[int]:
    block = [mark, core, 2, ticks & 0xFFFFFFFF, ticks >> 32, 0, 0, 0]
    return [*block, 1, *7 * [0], *block]


def seen_cores(mhz: float) -> dict:
    launch = {"status": 0, "launched": 0, "text": ""}
    start = (1 << 32) - 1000  # the low word runs over in between
    ticks = (start, start + round(mhz * 500_000))
    return {"granted": 2, "mark": 5} | {
        name: launch
        | {
            "began_ns": at * 500_000_000,
            "reports": [report_of(core, 5 + at, ticks[at]) for core in range(2)],
        }
        for at, name in enumerate(("first", "second"))
    }


@pytest.mark.parametrize(
    ("mhz", "finding"),
    [
        (50.0, ""),
        (51.0, ""),
        (48.0, ""),
        (100.0, "counter-not-50-mhz"),
        (1.0, "counter-not-50-mhz"),
    ],
)
def test_the_counter_runs_at_50_mhz(mhz, finding):
    verdict = judge("cores", {0: seen_cores(mhz)}, 1, "", virtual=False)
    assert verdict.finding == finding
    assert judge("cores", {0: seen_cores(mhz)}, 1, "", virtual=True).finding == ""
    assert f"{mhz:.2f} MHz" in verdict.evidence or f"{mhz:.3f} MHz" in verdict.evidence


def test_a_time_limit_that_does_not_hold():
    late = {
        "status": 561002,
        "text": "rank 1 did not come",
        "waited_s": 3 + findings.LATE_S + 1,
        "limit_s": 3.0,
        "record": [9, 1, 2, 0, 0, 0, 0, 0],
        "nonce": 9,
        "files": [{"missing_rank": 1}],
    }
    seen = {0: late, 1: {"provider": "kfc", "window_bytes": 1}}
    assert judge("timeout", seen, 2, "", virtual=False).finding == "gives-up-late"
    in_time = late | {"waited_s": 3.1}
    assert judge("timeout", {0: in_time, 1: seen[1]}, 2, "", virtual=False).finding == ""


@pytest.mark.parametrize(
    ("waited_s", "finding"), [(3.1, "no-record"), (0.2, "absent-rank-not-noticed")]
)
def test_a_kernel_that_ends_without_a_word(waited_s, finding):
    """Where only the record says that it gave up, the time says whether it did."""
    record = 8 * [0]
    seen = {"status": 0, "text": "", "waited_s": waited_s, "limit_s": 3.0, "record": record}
    verdict = judge("timeout", {0: seen | {"nonce": 9, "files": []}}, 2, "", virtual=False)
    assert verdict.finding == finding


def test_rows_of_ranks_and_runs_differ():
    rows = [row_of(rank, nonce) for rank in range(16) for nonce in (1, 3, 1 << 31)]
    assert len(set(rows)) == len(rows)
    assert {len(row) for row in rows} == {512}
