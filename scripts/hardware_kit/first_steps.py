"""The first steps of ``scripts/npu_check``: the cheapest truths first, and a named finding at the first that is none.

Every step asks one question that all later ones take for answered, and touches as little as possible: no torch_npu, no
operator. Two are answered by one process (``compile``, ``load``), the others by a process per rank (``probe_rank.py``),
new ones for every step. The supervisor of rank 0 judges (``findings.py``) and leaves the outcome for the others, which
torchrun may have started, as ``first-STEP.json``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ascend_moe.hardware import build
from ascend_moe.hardware.cann import STAND_IN, cann_home, cann_version_text, package_versions
from ascend_moe.hardware.kernel_library import (
    MARK,
    built_from,
    installation,
    installed_vendor,
    source_key,
)
from ascend_moe.hardware.product import present_product
from hardware_kit.findings import ADVICE, Verdict, judge
from hardware_kit.job import Job
from hardware_kit.phases import OURS, ROOT, NotPossible, base_environment
from hardware_kit.probe_library import first_custom
from hardware_kit.supervisor import Ranks, play_phase

PROGRAM = "hardware_kit.probe_rank"
ROW_LIMIT_S, ABSENT_LIMIT_S = 30, 3
BUILD_PATIENCE_S = 3600.0  # of a supervisor that waits for the one that builds
ERROR = re.compile(r"\berror\b|undefined reference|cannot find", re.IGNORECASE)
KEPT_LINES = 60
SHOWN = 500  # characters of evidence on the screen; the JSON has all


class Outcome(NamedTuple):
    """How a step ended; an empty finding: as it should."""

    step: str
    establishes: str
    finding: str
    evidence: str
    advice: str
    log: str  # what a process said before it failed

    def __str__(self) -> str:
        if not self.finding:
            return f"  {self.step:8} ok       {self.evidence}"
        evidence = textwrap.shorten(self.evidence, SHOWN, placeholder=" [...]")
        return f"  {self.step:8} FINDING  {self.finding}: {evidence}\n{'':20}{self.advice}"


@dataclass(frozen=True)
class Kit:
    """What all steps share."""

    ranks: Ranks
    folder: Path
    virtual: int | None
    rebuild: bool
    product: str
    servers: int = 1

    @property
    def lead(self) -> bool:
        return 0 in self.ranks.mine

    @property
    def on_virtual_npu(self) -> bool:
        return self.virtual is not None or STAND_IN in os.environ

    @cached_property
    def environment(self) -> dict[str, str]:
        """Of the ranks, once the library is built. Raises NotPossible."""
        return base_environment(self.virtual, [OURS], self.product, self.servers)


Told = tuple[Verdict, str]


def _compile(kit: Kit) -> Told:
    """Whether the library here is from these sources and this CANN; if not, it is built."""
    if kit.on_virtual_npu:
        try:
            _ = kit.environment
        except NotPossible as error:
            return Verdict("no-virtual-npu", str(error)), ""
        text = "virtual NPU: g++ over hostsim stands in, which says nothing about bisheng"
        return Verdict("", text), ""
    try:
        present = present_product()
    except ValueError as error:
        return Verdict("other-product", str(error)), ""
    if present is not None and present.product != kit.product:
        return Verdict("other-product", f"this is {present.product} ({present.chip})"), ""
    chip = "unknown chip" if present is None else present.chip
    why = "asked for by --rebuild" if kit.rebuild else _why_build()
    if not why:
        return Verdict("", f"{installation()}: from these sources, {source_key()}; {chip}"), ""
    lacks = build.missing(os.environ)
    if lacks:
        return Verdict("cannot-build", f"{why}, and missing: {'; '.join(lacks)}"), ""
    done = _python("-m", "ascend_moe.hardware.build", "--product", kit.product)
    said = done.stdout + done.stderr
    if done.returncode != 0:
        return Verdict("does-not-compile", first_error(said)), _tail(said)
    return Verdict(
        "", f"built ({why}): sources {source_key()}, CANN {cann_version_text()}; {chip}"
    ), ""


def _why_build() -> str:
    """Why the installed library will not do; empty if it will."""
    if installed_vendor() is None:
        return "no library is installed"
    record = built_from()
    if record.get("sources") != source_key():
        return f"the installed library is from other sources ({record.get('sources')})"
    here = cann_version_text()
    if record.get("cann") != here:
        return f"the installed library was built with CANN {record.get('cann')}, here is {here}"
    return ""


def first_error(said: str) -> str:
    """The line that a compiler's user looks for, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in lines if ERROR.search(line)), lines[-1])


def _load(kit: Kit) -> Told:
    """What dlopen says in a process that has nothing of CANN loaded before."""
    environment = kit.environment
    path, skipped = first_custom(environment)
    if path is None:
        reasons = [f"{one.path}: {one.skipped}" for one in skipped] or ["nowhere on its search"]
        return Verdict("not-found", f"torch_npu would find no library of ours: {reasons[0]}"), ""
    done = _python("-m", "hardware_kit.probe_library", str(path), environment=environment)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        said = done.stdout + done.stderr
        return Verdict("does-not-load", f"{path}: the process ended with {done.returncode}"), said
    if "error" in found:
        return Verdict("does-not-load", found["error"]), ""
    if found["version"] is None:
        return Verdict("not-ours", f"{path} has no {MARK}"), ""
    if found["lacks"]:
        return Verdict("other-library", f"{path} lacks {', '.join(found['lacks'])}"), ""
    home = cann_home(environment)
    packages = package_versions(home) or {"CANN": cann_version_text(home) or "unknown"}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return Verdict("", f"{path}, version {found['version']}; {versions}"), ""


@dataclass(frozen=True)
class Step:
    """``alone`` answers it in one process; without it the ranks do."""

    name: str
    establishes: str
    alone: Callable[[Kit], Told] | None = None
    limit_s: int = ROW_LIMIT_S  # ASCEND_MOE_TIMEOUT_S of the ranks


ANYWHERE = (
    Step(
        "compile", "the library is built, from these sources, for this product and CANN", _compile
    ),
    Step("load", "a new process can load it with all it needs, and it is ours", _load),
    Step(
        "launch", "a launch that fails is an error of that call, with a text, and of no other call"
    ),
    Step("cores", "every core runs one block, sees the others behind a SyncAll, and counts 50 MHz"),
)
STEPS = (
    *ANYWHERE,
    Step(
        "row",
        "the windows are found; a row of 512 bytes and a flag reach the neighbour's, in order",
    ),
    Step(
        "timeout",
        "a kernel whose peer does not come ends, names it, and leaves a record that can be read",
        limit_s=ABSENT_LIMIT_S,
    ),
)
NAMES = tuple(step.name for step in STEPS)
BETWEEN_SERVERS = (
    *ANYWHERE,
    Step("queues", "HCCL's tables of queues between the servers are as we read them"),
    Step("message", "a message and a tag reach the rank opposite, and come back; then larger ones"),
    Step(
        "wrap", "many messages in a row: the queue goes round, its tail moves, every number wraps"
    ),
    Step("burst", "a tag proves all messages before it, large ones in a row, both ways at once"),
    Step(
        "silent",
        "a kernel whose peer in the other server does not come ends, and names it and the link",
        limit_s=ABSENT_LIMIT_S,
    ),
)
ALL_NAMES = tuple(dict.fromkeys(step.name for step in (*STEPS, *BETWEEN_SERVERS)))


def steps_of(servers: int) -> tuple[Step, ...]:
    """In one server ranks reach each other's windows, in several the network card does."""
    return STEPS if servers == 1 else BETWEEN_SERVERS


def play(kit: Kit, begin: str) -> list[Outcome]:
    """The steps from ``begin`` on, until one has a finding."""
    outcomes: list[Outcome] = []
    if kit.lead:
        where = "the virtual NPU" if kit.on_virtual_npu else "the NPU"
        print(f"npu_check: first steps on {where}", flush=True)
    steps = steps_of(kit.servers)
    for step in steps[[step.name for step in steps].index(begin) :]:
        outcomes.append(_play(kit, step))
        if kit.lead:
            print(outcomes[-1], flush=True)
        if outcomes[-1].finding:
            break
    return outcomes


def _play(kit: Kit, step: Step) -> Outcome:
    path = kit.folder / f"first-{step.name}.json"
    if step.alone is None:
        verdict, log = _with_ranks(kit, step)
    elif kit.lead:
        verdict, log = step.alone(kit)
    if not kit.lead:
        return _of_lead(path, kit.ranks.patience_s if step.alone is None else BUILD_PATIENCE_S)
    advice = ADVICE[verdict.finding] if verdict.finding else ""
    outcome = Outcome(step.name, step.establishes, *verdict, advice, log)
    path.with_suffix(".new").write_text(json.dumps(outcome._asdict()))
    path.with_suffix(".new").rename(path)
    return outcome


def _of_lead(path: Path, patience_s: float) -> Outcome:
    deadline = time.monotonic() + patience_s
    while not path.is_file():
        if time.monotonic() > deadline:
            raise TimeoutError(f"rank 0 left no word of {path.stem}")
        time.sleep(0.1)
    return Outcome(**json.loads(path.read_text()))


def _with_ranks(kit: Kit, step: Step) -> Told:
    """A process per rank; each leaves what it has seen."""
    ranks = Ranks(kit.ranks.mine, kit.ranks.world, kit.ranks.patience_s, PROGRAM)
    job = Job(
        *(str(kit.folder), f"first-{step.name}", 0, 0, ranks.world, kit.product, 0),
        *(kit.on_virtual_npu, 0, 0, kit.servers),
    )
    failed = play_phase(job, ranks, 1, _of_ranks(kit, step))
    paths = {rank: job.path(f"seen.{rank}") for rank in range(ranks.world)}
    seen = {rank: json.loads(path.read_text()) for rank, path in paths.items() if path.is_file()}
    verdict = judge(step.name, seen, ranks.world, failed.get(0, ""), virtual=kit.on_virtual_npu)
    logs = sorted(kit.folder.glob(f"{job.phase}.*.log")) if failed else []
    return verdict, _tail("".join(log.read_text(errors="replace") for log in logs))


def _of_ranks(kit: Kit, step: Step) -> dict[str, str]:
    """The record that ``timeout`` provokes must not be news to the next ascend-moe doctor: a cache of its own."""
    return {
        **kit.environment,
        "ASCEND_MOE_TIMEOUT_S": str(_limit(step.limit_s)),
        "XDG_CACHE_HOME": str(kit.folder / "cache"),
    }


def _limit(limit_s: int) -> int:
    """A user who waits less gets less."""
    given = os.environ.get("ASCEND_MOE_TIMEOUT_S", "")
    return min(limit_s, int(given)) if given.isdecimal() and int(given) > 0 else limit_s


def _python(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = dict(os.environ if environment is None else environment)
    paths = [str(ROOT), str(ROOT / "scripts"), *filter(None, [env.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *arguments],
        env=env | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def _tail(said: str) -> str:
    return "\n".join(said.splitlines()[-KEPT_LINES:])
