"""``scripts/npu_check --tune FILE``: what this machine can do, and on how many cores the operators are fastest on it.

First rank 0 measures the figures of the model's machine (``estimate``), then all ranks play decode steps by our kernels
on several numbers of cores; of those the fewest that are as good as any are chosen. ``kernels/proof/tuning.py`` has the
form of the file, which ``ASCEND_MOE_TUNING`` and ``scripts/bench kernels --tuning`` read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from hardware_kit.cases import Case, tuning_cases, window_mb
from hardware_kit.estimate import LEFT_OUT
from hardware_kit.first_steps import PROGRAM, ROW_LIMIT_S
from hardware_kit.job import Job
from hardware_kit.phases import OURS, environment_of
from hardware_kit.supervisor import Ranks, play_phase
from kernels.proof.machine import FIGURES
from kernels.proof.tuning import CoreChoice, best, text

MEANINGLESS = "virtual NPU: what follows is meaningless"
OF_STEP = ("dispatch", "combine")


class NotMeasured(Exception):
    """A rank failed: which, and how."""


def tune(job: Job, ranks: Ranks, environment: Mapping[str, str]) -> str:
    """The content of the file, of the lead; an empty string of other supervisors. Raises NotMeasured."""
    lead = 0 in ranks.mine
    if lead:
        print("npu_check: figures of the machine, by rank 0", flush=True)
    measuring = replace(job, phase="first-figures")
    probes = Ranks(ranks.mine, ranks.world, ranks.patience_s, PROGRAM)
    limit = {"ASCEND_MOE_TIMEOUT_S": str(ROW_LIMIT_S)}
    failed = play_phase(measuring, probes, 1, {**environment, **limit})
    if failed:
        raise NotMeasured(f"the figures: {failed[0]}")
    cases = tuning_cases(job.product, job.world, short=job.short, servers=job.servers)
    if lead:
        print(f"npu_check: {len(cases)} shapes on several numbers of cores", flush=True)
    searching = replace(job, phase=OURS, tuning=True)
    needed = window_mb(job.product, job.world, cases, "ascend_moe")
    failed = play_phase(searching, ranks, len(cases), environment_of(OURS, environment, needed))
    if failed:
        number = min(failed)
        raise NotMeasured(f"{cases[number].name}: {failed[number]}")
    if not lead:
        return ""
    figures = json.loads(measuring.path("seen.0").read_text())["figures"]
    times = {case: _times(searching, number) for number, case in enumerate(cases)}
    return _content(job, figures, times)


def _times(job: Job, number: int) -> dict[str, dict[int, float]]:
    """Microseconds of the slowest rank, by operator and cores."""
    found = [
        torch.load(job.path(f"{number}.{rank}.pt"), weights_only=True)["us"]
        for rank in range(job.world)
    ]
    return {op: {n: max(of[n][op] for of in found) for n in found[0]} for op in OF_STEP}


def _content(
    job: Job, figures: Mapping[str, float], times: Mapping[Case, Mapping[str, Mapping[int, float]]]
) -> str:
    if job.short:
        print(MEANINGLESS)
    print(f"{'figure':20} {'measured':>10} {'believed':>10}")
    for name, value in figures.items():
        print(f"{name:20} {value:10.1f} {FIGURES[job.product][name].value:10.1f}")
    print(f"{'operator':24} {'rows':>5} {'cores':>6}   us by cores")
    prefix = "hierarchy_" if job.servers > 1 else ""
    choices, evidence = [], {}
    for case, of_case in times.items():
        shape = case.body
        for op, us in of_case.items():
            if op == "combine" and shape.quant:
                continue  # it is the same combine
            kind = "" if op == "combine" else "_int8" if shape.quant else "_bf16"
            choice = CoreChoice(
                f"{prefix}{op}{kind}", job.world, shape.max_batch * shape.topk, best(us)
            )
            choices.append(choice)
            evidence[f"{choice.operator} rows {choice.rows}"] = us
            tried = ", ".join(f"{cores}: {value:.1f}" for cores, value in us.items())
            print(f"{choice.operator:24} {choice.rows:5} {choice.cores:6}   {tried}")
    return text(
        {
            "product": job.product,
            "virtual": job.short,
            "machine": dict(figures),
            "left_out": LEFT_OUT,
            "us_by_cores": evidence,
        },
        choices,
    )


def write(path: Path, content: str) -> None:
    """Whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(content)
    new.replace(path)
    print(f"written: {path}; export ASCEND_MOE_TUNING={path.resolve()} on every rank")
