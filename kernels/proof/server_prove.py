"""The section ``hierarchy`` of ``scripts/prove_kernels``: several servers, docs/kernels-hierarchy.md."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from .server_cases import reached, what_notices
from .server_proof import (
    run_server_golden,
    run_server_schedules,
    run_server_sweep,
    server_schedule_programs,
    traffic,
    window_cases,
)
from .golden_programs import server_golden_cases
from .tally import Tally, chunks

Report = Callable[[str, Tally | None], None]


def before_fork() -> None:
    """What the processes share."""
    server_schedule_programs(), reached()


def prove_servers(pool: Executor, done: Report, *, quick: bool) -> tuple[dict[str, Any], Tally]:
    """Runs everything in ``pool``; (the JSON section, what went wrong)."""
    sweep, schedules = (20, 80) if quick else (200, 5_000)
    golden_run = pool.submit(run_server_golden, 1 if quick else 3)
    swept_runs = [pool.submit(run_server_sweep, seeds) for seeds in chunks(sweep, 20)]
    schedule_runs = [pool.submit(run_server_schedules, seeds) for seeds in chunks(schedules, 50)]
    sites = sorted(reached())
    noticed = pool.map(what_notices, sites)
    golden, total = golden_run.result(), len(server_golden_cases())
    done(f"servers, golden: {golden.passed} of {total} bit-exact", golden)
    swept = sum((run.result() for run in swept_runs), Tally())
    done(f"servers, sweep: {swept.passed} of {sweep} programs equal to the oracle", swept)
    scheduled = sum((run.result() for run in schedule_runs), Tally())
    done(
        f"servers, schedules: {scheduled.passed} of {schedules} without finding, deadlock or difference",
        scheduled,
    )
    survivors = [site for site, how in zip(sites, noticed, strict=True) if not how]
    done(f"servers, mutants: {len(sites) - len(survivors)} of {len(sites)} noticed", None)
    for site in survivors:
        print(f"  not noticed: {site}")
    moved = {servers: traffic(servers) for servers in (2,) + (() if quick else (4,))}
    for servers, of_servers in moved.items():
        for op, figures in of_servers.items():
            done(f"{servers} servers, {op}: {figures}", None)
    grid = list(window_cases())
    larger = [case for case in grid if case.ours > case.stock]
    done(f"servers, window: larger than the stock formula in {len(larger)} of {len(grid)}", None)
    everything = golden + swept + scheduled
    record = {
        "golden_passed": golden.passed,
        "golden_total": total,
        "sweep_cases": sweep,
        "schedules": schedules,
        "findings": everything.findings,
        "deadlocks": everything.deadlocks,
        "mutations_caught": len(sites) - len(survivors),
        "mutations_total": len(sites),
        "traffic": {str(servers): figures for servers, figures in moved.items()},
        "windows": len(grid),
        "windows_above_stock": len(larger),
    }
    return record, everything
