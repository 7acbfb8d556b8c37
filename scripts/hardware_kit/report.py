"""From the files of both phases to one table and one JSON."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from hardware_kit.cases import GOLDEN, SWEEP, TIMING, Case, bits
from hardware_kit.phases import OURS, STOCK
from hardware_kit.timing import LINK_GB_S

MEANINGLESS = "virtual NPU: timings are meaningless"


class Report:
    """Everything that was found."""

    def __init__(self, folder: Path, cases: list[Case], failed: dict[str, dict[int, str]]) -> None:
        self.folder, self.cases, self.failed = folder, cases, failed
        self.phases = list(failed)
        self.checks = [self._check(n, case) for n, case in enumerate(cases) if case.kind != TIMING]
        self.timings = [
            timing
            for number, case in enumerate(cases)
            if case.kind == TIMING
            for timing in self._timings(number, case)
        ]

    @property
    def good(self) -> bool:
        """Ours is right everywhere and equal to stock wherever stock could play."""
        return all(
            check.get(OURS, "equal") == "equal" and not check.get("difference")
            for check in self.checks
        ) and not any(self.cases[number].kind == TIMING for number in self.failed.get(OURS, {}))

    def _results(self, phase: str, number: int, case: Case) -> list[Any] | None:
        if number in self.failed[phase]:
            return None
        paths = [self.folder / f"{phase}.{number}.{rank}.pt" for rank in range(case.ranks)]
        if not all(path.is_file() for path in paths):
            return None
        return [torch.load(path, weights_only=True) for path in paths]

    def _check(self, number: int, case: Case) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kind": case.kind,
            "name": case.name,
            "ranks": case.ranks,
            "tp": case.tp,
        }
        outputs = {}
        for phase in self.phases:
            results = self._results(phase, number, case)
            if results is None:
                found[phase] = self.failed[phase].get(number, "not played")
                continue
            wrong = [
                f"rank {rank}: {result['wrong']}"
                for rank, result in enumerate(results)
                if result["wrong"]
            ]
            found[phase] = wrong[0] if wrong else "equal"
            outputs[phase] = [result["outputs"] for result in results]
        if len(outputs) == 2:
            found["difference"] = first_difference(outputs[OURS], outputs[STOCK])
        return found

    def _timings(self, number: int, case: Case) -> list[dict[str, Any]]:
        results = {phase: self._results(phase, number, case) for phase in self.phases}
        rows = []
        for op in ("dispatch", "combine"):
            row: dict[str, Any] = {"case": case.name, "op": op}
            for phase, ranks in results.items():
                if ranks is None:
                    continue
                slowest = max(rank["us"][op] for rank in ranks)
                moved = statistics.mean(rank["link_bytes"][op] for rank in ranks)
                row["link_bytes"] = moved
                row[f"{phase}_us"] = slowest
                row[f"{phase}_gb_s"] = moved / slowest / 1e3
                row[f"{phase}_of_link"] = moved / slowest / 1e3 / LINK_GB_S
            rows.append(row)
        return rows

    def table(self, virtual: bool) -> str:
        lines = [f"{'':8} {'cases':>5}" + "".join(f" {phase:>8}" for phase in self.phases)]
        lines[0] += "  ours = stock"
        for kind in (GOLDEN, SWEEP):
            checks = [check for check in self.checks if check["kind"] == kind]
            line = f"{kind:8} {len(checks):5}"
            for phase in self.phases:
                line += f" {sum(check[phase] == 'equal' for check in checks):8}"
            compared = [check for check in checks if "difference" in check]
            line += f"  {sum(not check['difference'] for check in compared)} of {len(compared)}"
            lines.append(line)
        lines += [
            "",
            MEANINGLESS if virtual else "microseconds per call, slowest rank; share of the link",
        ]
        lines.append(
            f"{'case':12} {'op':9}"
            + "".join(f" {phase + ' us':>10} {'link':>5}" for phase in self.phases)
        )
        for row in self.timings:
            line = f"{row['case']:12} {row['op']:9}"
            for phase in self.phases:
                if f"{phase}_us" in row:
                    line += f" {row[f'{phase}_us']:10.1f} {row[f'{phase}_of_link']:5.0%}"
                else:
                    line += f" {'-':>10} {'-':>5}"
            lines.append(line)
        lines += ["", *self._failures()]
        return "\n".join(lines)

    def _failures(self) -> list[str]:
        lines = [
            f"{check['name']} {phase}: {check[phase]}"
            for check in self.checks
            for phase in self.phases
            if check[phase] != "equal"
        ]
        lines += [
            f"{check['name']} ours and stock: {check['difference']}"
            for check in self.checks
            if check.get("difference")
        ]
        for phase, failed in self.failed.items():
            lines += [
                f"{self.cases[number].name} {phase}: {why}"
                for number, why in failed.items()
                if self.cases[number].kind == TIMING
            ]
        return lines


def first_difference(ours: list[dict[str, Any]], stock: list[dict[str, Any]]) -> str:
    """Where two phases differ first, or an empty string."""
    for rank, (one, other) in enumerate(zip(ours, stock, strict=True)):
        for name in one:
            if one[name].shape != other[name].shape:
                return f"rank {rank}: {name} has shapes {one[name].shape} and {other[name].shape}"
            different = bits(one[name]) != bits(other[name])
            if different.any():
                size = one[name].element_size()
                elements = different.view(-1, size).any(dim=1)
                at = int(elements.nonzero()[0])
                count, total = int(elements.sum()), elements.numel()
                return f"rank {rank}: {name}, {count} of {total} elements, the first is number {at}"
    return ""
