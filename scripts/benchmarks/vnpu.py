"""How long a serving loop takes on the virtual NPU: pairs of dispatch and combine, checked to the bit.

Nothing here says anything about the speed of an NPU. Columns: until all ranks have made their group and a first pair
(imports, groups, opening), then what one pair takes on all ranks together, by the clock and of processors.
Rows: our kernels in the simulator with its checks, the same without them (ASCEND_MOE_VNPU_CHECKS=0), and the
stand-in's own operators (ASCEND_MOE_KERNELS=off). Each row is run so often in turn; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROWS: dict[str, dict[str, str]] = {
    "kernels, checked": {"ASCEND_MOE_KERNELS": "require", "ASCEND_MOE_VNPU_CHECKS": "1"},
    "kernels, unchecked": {"ASCEND_MOE_KERNELS": "require", "ASCEND_MOE_VNPU_CHECKS": "0"},
    "stand-in operators": {"ASCEND_MOE_KERNELS": "off"},
}
PROGRAM = Path(__file__).with_name("vnpu_ranks.py")


def run(row: str, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of one run, as its rank 0 prints them."""
    sizes = [given.ranks, given.tokens, given.hidden, given.pairs]
    done = subprocess.run(
        [sys.executable, "-m", "ascend_moe", "run", str(PROGRAM), *map(str, sizes)],
        env=os.environ | ROWS[row],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{row}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench vnpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ranks", type=int, default=16, help="(default %(default)s)")
    parser.add_argument("--tokens", type=int, default=8, help="BS (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=7168, help="H (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=100, help="(default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each row (default %(default)s)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {row: [] for row in given.rows}
    for _ in range(given.runs):
        for row in given.rows:
            runs[row].append(run(row, given))
    print(
        f"VIRTUAL NPU, {given.ranks} ranks, BS {given.tokens}, H {given.hidden}, {given.pairs} pairs, "
        f"median of {given.runs}, {os.cpu_count()} cores\n\n"
        f"{'':20}{'start, s':>10}{'pair, ms':>10}{'cpu, ms':>10}{'in all, s':>11}"
    )
    for row, all_of in runs.items():
        start, pairs, cpu = (
            statistics.median(one[key] for one in all_of) for key in ("start", "pairs", "cpu")
        )
        total = statistics.median(one["start"] + one["pairs"] for one in all_of)
        per_pair = 1000 / given.pairs
        print(f"{row:20}{start:10.1f}{per_pair * pairs:10.1f}{per_pair * cpu:10.1f}{total:11.1f}")
    if given.json:
        given.json.write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
