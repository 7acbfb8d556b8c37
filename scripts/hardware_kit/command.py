"""What scripts/npu_check does: the first steps, both phases or the tuning, the report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# This process only starts ranks and compares files: it must not open a device.
INHERITED = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"

from ascend_moe.cli.doctor import gather  # noqa: E402
from ascend_moe.contract.resolve import resolve_product  # noqa: E402
from ascend_moe.hardware.cann import STAND_IN  # noqa: E402
from ascend_moe.hardware.elf import exported_names  # noqa: E402
from ascend_moe.hardware.kernel_library import MARK  # noqa: E402
from hardware_kit import first_steps  # noqa: E402
from hardware_kit.arguments import folder_of, parse, ranks_of  # noqa: E402
from hardware_kit.cases import all_cases, most_ranks, window_mb  # noqa: E402
from hardware_kit.job import Job  # noqa: E402
from hardware_kit.phases import (  # noqa: E402
    OURS,
    STOCK,
    NotPossible,
    base_environment,
    environment_of,
    is_virtual,
)
from hardware_kit.report import Report  # noqa: E402
from hardware_kit.supervisor import Ranks, play_phase  # noqa: E402
from hardware_kit.tune import NotMeasured, tune, write  # noqa: E402

IMPLEMENTATION = {OURS: "ascend_moe", STOCK: "stock"}
FORMAT = 1


def main(description: str, arguments: Sequence[str] | None = None) -> int:
    options = parse(description, arguments)
    ranks = ranks_of(options)
    try:
        options.product = resolve_product(options.product).name
    except ValueError as error:
        print(f"npu_check: {error}", file=sys.stderr)
        return 2
    most = most_ranks(options.product) * options.servers
    if not 2 <= ranks.world <= most or ranks.world % options.servers:
        where = f" on {options.servers} servers, as many on each" if options.servers > 1 else ""
        print(
            f"npu_check: {ranks.world} ranks: between 2 and {most} are possible on {options.product}{where}",
            file=sys.stderr,
        )
        return 2
    if options.tune is not None and options.servers > 1 and ranks.world != most:
        print(f"npu_check: --tune: two servers are whole with {most} ranks", file=sys.stderr)
        return 2
    try:
        folder = folder_of(options)
    except OSError as error:
        print(f"npu_check: --shared {options.shared}: {error.strerror or error}", file=sys.stderr)
        return 2
    try:
        return _play(options, ranks, folder)
    except NotPossible as error:
        print(f"npu_check: {error}", file=sys.stderr)
        return 2
    finally:
        if 0 in ranks.mine:
            shutil.rmtree(folder, ignore_errors=True)


def _play(options: argparse.Namespace, ranks: Ranks, folder: Path) -> int:
    """The first steps, and if they are well both phases."""
    outcomes: list[first_steps.Outcome] = []
    if OURS in options.phases and not options.skip_first_steps:
        kit = first_steps.Kit(
            *(ranks, folder, options.virtual, options.rebuild, options.product, options.servers)
        )
        outcomes = first_steps.play(kit, options.begin)
    if options.first_steps or any(outcome.finding for outcome in outcomes):
        return _stop(options, ranks, outcomes)
    whole = most_ranks(options.product) * options.servers
    if options.servers > 1 and ranks.world != whole:
        why = f"they need whole servers, {whole} ranks, not {ranks.world}"
        playable = options.product == "A2" and OURS in options.phases
        if 0 in ranks.mine:
            print(f"npu_check: no hierarchy and nothing of CANN's: {why}", flush=True)
        if not playable:
            return _stop(options, ranks, outcomes)
        options.phases = [OURS]
    environment = base_environment(
        options.virtual, options.phases, options.product, options.servers
    )
    environment.pop("ASCEND_MOE_TUNING", None)  # both are played as they are without one
    if INHERITED is None:
        environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    else:
        environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = INHERITED
    if options.tune is not None:
        return _tune(options, ranks, folder, environment)
    return _run(options, ranks, folder, environment, outcomes)


def _tune(
    options: argparse.Namespace, ranks: Ranks, folder: Path, environment: dict[str, str]
) -> int:
    virtual = is_virtual(environment)
    rounds = options.rounds or (1 if virtual else 200)
    job = Job(
        *(str(folder), OURS, 0, 0, ranks.world, options.product, 0, virtual, rounds, 0),
        options.servers,
    )
    try:
        content = tune(job, ranks, environment)
    except NotMeasured as error:
        print(f"npu_check: nothing is written, {error}", file=sys.stderr)
        return 1
    if 0 in ranks.mine:
        write(options.tune, content)
    return 0


def _stop(
    options: argparse.Namespace, ranks: Ranks, outcomes: Sequence[first_steps.Outcome]
) -> int:
    """Nothing else is played: a report of the first steps alone."""
    good = bool(outcomes) and not outcomes[-1].finding
    if 0 in ranks.mine:
        virtual = options.virtual is not None or STAND_IN in os.environ
        found = _beginning(virtual, options, good, ranks, os.environ, outcomes)
        _write(options.json, found, virtual)
        if len(ranks.mine) < ranks.world:
            time.sleep(2)  # the other supervisors read the outcome
    return 0 if good else 1


def _beginning(
    virtual: bool,
    options: argparse.Namespace,
    good: bool,
    ranks: Ranks,
    environment: Mapping[str, str],
    outcomes: Sequence[first_steps.Outcome],
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "virtual": virtual,
        "product": options.product,
        "servers": options.servers,
        "timings_meaningless": virtual,
        "good": good,
        "ranks": ranks.world,
        "doctor": gather(environment),
        "first_steps": [outcome._asdict() for outcome in outcomes],
    }


def _write(path: Path, found: Mapping[str, Any], virtual: bool) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {path}" + ("" if virtual else "; please send it back (docs/hardware.md)"))


def _run(
    options: argparse.Namespace,
    ranks: Ranks,
    folder: Path,
    environment: dict[str, str],
    outcomes: Sequence[first_steps.Outcome],
) -> int:
    virtual = is_virtual(environment)
    sweep = options.sweep if options.sweep is not None else (8 if virtual else 40)
    rounds = options.rounds or (3 if virtual else 200)
    cases = all_cases(options.product, ranks.world, sweep, short=virtual, servers=options.servers)
    lead = 0 in ranks.mine
    failed: dict[str, dict[int, str]] = {}
    windows: dict[str, str] = {}
    for phase in options.phases:
        if lead:
            print(f"npu_check: {phase}, {len(cases)} cases on {ranks.world} ranks", flush=True)
        job = Job(
            *(str(folder), phase, 0, 0, ranks.world, options.product, sweep, virtual, rounds, 0),
            options.servers,
        )
        of_phase = environment_of(
            phase,
            environment,
            window_mb(options.product, ranks.world, cases, IMPLEMENTATION[phase]),
        )
        windows[phase] = of_phase["HCCL_BUFFSIZE"]
        failed[phase] = play_phase(job, ranks, len(cases), of_phase)
    if not lead:
        return _verdict(folder, ranks.patience_s)
    facts = {phase: _facts(folder, phase) for phase in options.phases}
    report = Report(folder, cases, failed)
    print(report.table(virtual))
    strays = [text for phase, found in facts.items() if (text := stray(phase, found))]
    for text in strays:
        print(text)
    good = report.good and not strays
    found = _beginning(virtual, options, good, ranks, environment, outcomes) | {
        "hccl_buffsize_mb": windows,
        "facts": facts,
        "checks": report.checks,
        "timings": report.timings,
        "failed": {
            phase: {cases[number].name: why for number, why in numbers.items()}
            for phase, numbers in failed.items()
        },
    }
    _write(options.json, found, virtual)
    code = 0 if good else 1
    (folder / "verdict.new").write_text(str(code))
    (folder / "verdict.new").rename(folder / "verdict")
    if len(ranks.mine) < ranks.world:
        time.sleep(2)  # the other supervisors read it
    return code


def _verdict(folder: Path, patience_s: float) -> int:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if (folder / "verdict").is_file():
            return int((folder / "verdict").read_text())
        time.sleep(0.1)
    return 1


def stray(phase: str, facts: Mapping[str, Any]) -> str:
    """Whether a phase ran another implementation than its own, from what was loaded and what the library said."""
    libraries = [Path(path) for path in facts.get("custom_libraries", ())]
    speaking = any(MARK in exported_names(path) for path in libraries)
    other = f"kernels={STOCK if phase == OURS else OURS}"
    said = [line for line in facts.get("said", ()) if "kernels=" in line]
    if any(other in line for line in said):
        return f"{phase}: the library chose the other implementation: {said[0]}"
    if phase == OURS and not facts.get("ours_loaded"):
        return f"{phase}: libcust_opapi.so of ascend_moe was never loaded; see ascend-moe doctor"
    if phase == OURS and speaking and not said:
        return f"{phase}: the library never said which implementation it chose"
    return ""


def _facts(folder: Path, phase: str) -> dict[str, Any]:
    """What rank 0 saw, and what the library said about its choice."""
    path = folder / f"{phase}.facts.json"
    facts: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    lines = {
        line.strip()
        for log in folder.glob(f"{phase}.*.log")
        for line in log.read_text(errors="replace").splitlines()
        if line.startswith("ascend-moe: ")
    }
    return facts | {"said": sorted(lines)[:40]}
