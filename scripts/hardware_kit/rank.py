"""One rank of one phase: ``python -m hardware_kit.rank JSON``. See the package; the supervisor starts it."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch_npu

from ascend_moe.hardware.process import look_at
from hardware_kit.cases import (
    GOLDEN,
    TIMING,
    TUNING,
    Case,
    active_rows,
    all_cases,
    bits,
    layer,
    specified,
    tuning_cases,
)
from hardware_kit.job import Job
from hardware_kit.probe_library import first_custom
from hardware_kit.timing import link_bytes, measure

FAILED = 3


class Rank:
    """The groups of a rank and its way through the cases."""

    def __init__(self, job: Job) -> None:
        self.job = job
        torch.set_num_threads(1)
        torch_npu.npu.set_device(job.device)
        store = job.path(f"{job.attempt}.store")
        dist.init_process_group(
            "hccl", init_method=f"file://{store}", rank=job.rank, world_size=job.world
        )
        how = {"short": job.short, "servers": job.servers}
        self.cases = (
            tuning_cases(job.product, job.world, **how)
            if job.tuning
            else all_cases(job.product, job.world, job.sweep, **how)
        )
        self.names: dict[tuple[int, int, bool], dict[str, str]] = {}
        for ranks, tp, hierarchy in sorted(
            {(case.ranks, case.tp, case.hierarchy) for case in self.cases}
        ):
            self._make_groups(ranks, tp, hierarchy)

    def _make_groups(self, ranks: int, tp: int, hierarchy: bool) -> None:
        """Groups of their own for the operators: EP takes every tp-th rank, TP pairs are neighbours."""
        layouts = {"group_ep": [range(plane, ranks, tp) for plane in range(tp)]}
        if tp == 2:
            layouts["group_tp"] = [range(first, first + 2) for first in range(0, ranks, 2)]
        made = {}
        for keyword, layout in layouts.items():
            for members in layout:
                group = dist.new_group(list(members))
                if self.job.rank in members:
                    backend = group._get_backend(torch.device("npu"))
                    made[keyword] = backend.get_hccl_comm_name(self.job.rank)
        self.names[ranks, tp, hierarchy] = made

    def play(self) -> None:
        for number in range(self.job.first, len(self.cases)):
            self._progress(number)
            case = self.cases[number]
            if self.job.rank < case.ranks:
                play = {TIMING: self._measure, TUNING: self._search}.get(case.kind, self._check)
                result = play(case)
                torch.save(result, self.job.path(f"{number}.{self.job.rank}.pt"))
        self._progress(len(self.cases))
        if self.job.rank == 0:
            self.job.path("facts.json").write_text(json.dumps(self._facts()))
        self._wait_for_all()
        dist.destroy_process_group()

    def _progress(self, number: int) -> None:
        self.job.path(f"{self.job.attempt}.{self.job.rank}.case").write_text(str(number))

    def _wait_for_all(self) -> None:
        """A communicator lives until every rank is through; no collective, which could hide a hang."""
        self.job.path(f"{self.job.attempt}.{self.job.rank}.through").touch()
        pattern = f"{self.job.phase}.{self.job.attempt}.*.through"
        while len(list(Path(self.job.folder).glob(pattern))) < self.job.world:
            time.sleep(0.05)

    def _on_npu(self, call: dict[str, Any], case: Case) -> dict[str, Any]:
        moved = {
            name: value.npu() if isinstance(value, torch.Tensor) else value
            for name, value in call.items()
        }
        return moved | self.names[case.ranks, case.tp, case.hierarchy]

    def _dispatch(self, call: dict[str, Any], case: Case) -> list[torch.Tensor]:
        found = torch_npu.npu_moe_distribute_dispatch_v2(**self._on_npu(call, case))
        return [tensor.cpu() for tensor in found]

    def _combine(self, call: dict[str, Any], case: Case) -> torch.Tensor:
        return torch_npu.npu_moe_distribute_combine_v2(**self._on_npu(call, case)).cpu()

    def _check(self, case: Case) -> dict[str, Any]:
        return self._golden(case) if case.kind == GOLDEN else self._sweep(case)

    def _golden(self, case: Case) -> dict[str, Any]:
        rank, golden = self.job.rank, case.body
        call = golden.dispatch_call(rank)
        output = self._dispatch(call, case)
        combine = golden.combine_call(rank, output)
        combined = self._combine(combine, case)
        wrong = ""
        try:
            golden.check_dispatch(rank, output, handle=golden.product == "A3")
            written = golden.tensor(rank, "combine_out_row_written").bool()
            wanted = golden.tensor(rank, "combine_out")
            assert torch.equal(bits(combined[written]), bits(wanted[written])), "combine differs"
        except AssertionError as error:
            wrong = str(error).splitlines()[0]
        rows = len(golden.tensor(rank, "expand_x"))
        outputs = {"expand_x": output[0][:rows], "expert_token_nums": output[3]}
        return {"wrong": wrong, "outputs": outputs | {"combine": active_rows(call, combined)}}

    def _sweep(self, case: Case) -> dict[str, Any]:
        rank = self.job.rank
        dispatch, combine = layer(case).steps
        call, expected = dispatch.calls[rank], dispatch.expected[rank]
        dispatched = self._dispatch(call, case)
        outputs = specified(case, expected, call, dispatched)
        wanted = specified(case, expected, call, list(expected))
        combined = self._combine(combine.calls[rank] | self._handle(dispatched, case), case)
        outputs["combine"] = active_rows(call, combined)
        wanted["combine"] = active_rows(call, combine.expected[rank])
        differs = [
            name for name in wanted if not torch.equal(bits(outputs[name]), bits(wanted[name]))
        ]
        wrong = f"{', '.join(differs)} differ from the oracle" if differs else ""
        return {"wrong": wrong, "outputs": outputs}

    def _handle(self, dispatched: list[torch.Tensor], case: Case) -> dict[str, torch.Tensor]:
        """In hierarchy and on A2 that of the implementation that is played; on A3 the oracle's will do."""
        if case.hierarchy:
            names = ("assist_info_for_combine", "ep_send_counts", "expand_scales")
            return dict(zip(names, (dispatched[2], dispatched[4], dispatched[6]), strict=True))
        return {"assist_info_for_combine": dispatched[2]} if self.job.product == "A2" else {}

    def _search(self, case: Case) -> dict[str, Any]:
        """Microseconds of both operators by the number of cores."""
        library = ctypes.CDLL(str(first_custom(os.environ)[0]))  # the one that torch_npu will load
        granted = library.ascend_moe_probe_granted_cores()
        tried = (16,) if self.job.short else range(8, granted, 8)
        found = {}
        for cores in sorted({*tried, granted}):
            library.ascend_moe_probe_force_cores(cores)
            found[cores] = self._measure(case)["us"]
        library.ascend_moe_probe_force_cores(0)
        return {"us": found}

    def _measure(self, case: Case) -> dict[str, Any]:
        dispatch, combine = layer(case).steps
        call = dispatch.calls[self.job.rank]
        inputs = self._on_npu(call, case)
        handle = self._handle(self._dispatch(call, case), case)
        back = self._on_npu(combine.calls[self.job.rank] | handle, case)
        times = measure(
            {
                "dispatch": lambda: torch_npu.npu_moe_distribute_dispatch_v2(**inputs),
                "combine": lambda: torch_npu.npu_moe_distribute_combine_v2(**back),
            },
            self.job.rounds,
        )
        return {"us": times, "link_bytes": link_bytes(call, self.job.rank)}

    def _facts(self) -> dict[str, Any]:
        loaded = look_at(os.getpid())
        return {
            "torch": torch.__version__,
            "torch_npu": torch_npu.__version__,
            "device": torch_npu.npu.get_device_name(self.job.device),
            "custom_libraries": list(loaded.custom),
            "ours_loaded": loaded.ours_loaded,
        }


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    try:
        Rank(job).play()
    except Exception as error:
        traceback.print_exc()
        text = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        job.path(f"{job.attempt}.{job.rank}.error").write_text(text)
        sys.stderr.flush()
        os._exit(FAILED)  # no destructor may wait for ranks that will not come


if __name__ == "__main__":
    main()
