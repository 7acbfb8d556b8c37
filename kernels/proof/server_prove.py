"""The section ``hierarchy`` of ``scripts/prove_kernels``: several servers, docs/kernels-hierarchy.md."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from .golden_programs import server_golden_cases
from .server_cases import reached, what_notices
from .server_proof import (
    run_server_golden,
    run_server_schedules,
    run_server_sweep,
    traffic,
    window_cases,
)
from .tally import Tally, chunks


class ServerProof:
    """Its parts, started in a pool and then waited for."""

    def __init__(self, pool: Executor, *, quick: bool) -> None:
        self._sweep, self._schedules = (20, 80) if quick else (200, 5_000)
        self._servers = (2,) if quick else (2, 4)
        self._golden = pool.submit(run_server_golden, 1 if quick else 3)
        self._swept = [pool.submit(run_server_sweep, seeds) for seeds in chunks(self._sweep, 20)]
        self._scheduled = [
            pool.submit(run_server_schedules, seeds) for seeds in chunks(self._schedules, 50)
        ]
        self._sites = sorted(reached())
        self._noticed = [pool.submit(what_notices, site) for site in self._sites]

    def figures(self, done: Callable[[str, Tally | None], None]) -> tuple[dict[str, Any], bool]:
        """For the record, and whether nothing was found."""
        golden, total = self._golden.result(), len(server_golden_cases())
        done(f"servers, golden: {golden.passed} of {total} bit-exact", golden)
        swept = sum((run.result() for run in self._swept), Tally())
        done(f"servers, sweep: {swept.passed} of {self._sweep} equal to the oracle", swept)
        scheduled = sum((run.result() for run in self._scheduled), Tally())
        done(
            f"servers, schedules: {scheduled.passed} of {self._schedules}"
            " without finding, deadlock or difference",
            scheduled,
        )
        noticed = zip(self._sites, self._noticed, strict=True)
        survivors = [site for site, how in noticed if not how.result()]
        number = len(self._sites)
        done(f"servers, mutants: {number - len(survivors)} of {number} noticed", None)
        for site in survivors:
            print(f"  not noticed: {site}")
        moved = {str(servers): traffic(servers) for servers in self._servers}
        for servers, of_servers in moved.items():
            for op, of_op in of_servers.items():
                done(f"{servers} servers, {op}: {of_op}", None)
        grid = list(window_cases())
        larger = sum(case.ours > case.stock for case in grid)
        done(f"servers, window: above the stock formula in {larger} of {len(grid)}", None)
        everything = golden + swept + scheduled
        return {
            "golden_passed": golden.passed,
            "golden_total": total,
            "sweep_cases": self._sweep,
            "schedules": self._schedules,
            "findings": everything.findings,
            "deadlocks": everything.deadlocks,
            "mutations_caught": number - len(survivors),
            "mutations_total": number,
            "traffic": moved,
            "windows": len(grid),
            "windows_above_stock": larger,
        }, not everything.examples
