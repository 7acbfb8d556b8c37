"""``ascend-moe stragglers``: recorded performance_info tensors as a table and a heat map."""

from __future__ import annotations

import argparse
import sys

from ascend_moe.cli.heat_map import EXTRA, draw
from ascend_moe.cli.recordings import read_all
from ascend_moe.cli.table import paragraph
from ascend_moe.contract.errors import plain
from ascend_moe.diagnosis.stragglers import Standing, Waiting, standings, verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Recorded performance_info tensors of many steps: who waits for whom, and which rank is slow. Record "
        "performance_info after each step (int64, one number per rank of the EP group) and set it to zero; save the "
        "steps of a rank with torch.save or np.save as (steps, ranks) in a file with the rank as the last number of "
        "its name, or those of all ranks as (steps, ranks, ranks) in one file."
    )
    parser.epilog = "exit code: 0 shown, 2 usage, a file that cannot be read, or no heat map"
    parser.add_argument("files", metavar="FILE", nargs="+", help="of torch.save or np.save")
    parser.add_argument("--svg", metavar="OUT", help=f"also a heat map; needs the extra {EXTRA}")
    parser.add_argument("--top", metavar="N", type=int, default=16, help="ranks shown (default 16)")


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.top < 1:
            raise ValueError(f"--top is {arguments.top}, needed: >= 1")
        waiting = Waiting.of(read_all(arguments.files))
    except ValueError as error:
        print(f"ascend-moe stragglers: {plain(error)}", file=sys.stderr)
        return 2
    print(_text(waiting, arguments.top))
    if arguments.svg:
        try:
            draw(waiting, arguments.svg)
        except (ImportError, OSError) as error:
            print(f"ascend-moe stragglers: {plain(error)}", file=sys.stderr)
            return 2
    return 0


def _text(waiting: Waiting, top: int) -> str:
    found = standings(waiting)
    few = "" if len(waiting.waiters) == waiting.ranks else f" ({len(waiting.waiters)} recorded)"
    lines = [
        f"{waiting.steps} steps, {waiting.ranks} ranks{few}; microseconds per step",
        "",
        "rank   waited for   longest     delay   last in   waits itself",
        *map(_row, found[:top]),
    ]
    if len(found) > top:
        lines.append(f"and {len(found) - top} more (--top)")
    lines += ["", *_pairs(waiting), "", paragraph(verdict(waiting))]
    return "\n".join(lines)


def _row(one: Standing) -> str:
    waits = "-" if one.waits is None else f"{one.waits:.0f}"
    return (
        f"{one.rank:4d}{one.waited_for:13.0f}{one.longest:10.0f}{one.delay:10.0f}"
        f"{one.last:10d}{waits:>15s}"
    )


def _pairs(waiting: Waiting) -> list[str]:
    """The longest mean waits, by pair."""
    mean = waiting.mean()
    pairs = [
        (float(mean[index, rank]), waiter, rank)
        for index, waiter in enumerate(waiting.waiters)
        for rank in range(waiting.ranks)
        if rank != waiter and mean[index, rank] > 0
    ]
    longest = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:5]
    return [f"rank {waiter} waits {wait:.0f} us for rank {rank}" for wait, waiter, rank in longest]
