"""The command line of scripts/npu_check: what is asked for, which ranks are mine, where supervisors meet."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ascend_moe.contract.limits import PRODUCTS
from hardware_kit import first_steps
from hardware_kit.phases import OURS, STOCK
from hardware_kit.supervisor import Ranks


def parse(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="npu_check",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="without torchrun: how many dies")
    parser.add_argument("--virtual", type=int, metavar="N", help="N ranks on the virtual NPU")
    parser.add_argument(
        "--product",
        choices=PRODUCTS,
        help="default: ASCEND_MOE_PRODUCT, else the NPU here, else A3",
    )
    parser.add_argument(
        "--servers",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: half of the ranks stand on another server, behind network cards",
    )
    parser.add_argument(
        "--server",
        type=int,
        choices=(0, 1),
        help="which of two servers this is (not with --virtual)",
    )
    parser.add_argument(
        "--shared",
        type=Path,
        metavar="FOLDER",
        help="an empty folder that both servers see (not with --virtual)",
    )
    parser.add_argument("--phases", nargs="+", choices=(OURS, STOCK), default=[STOCK, OURS])
    parser.add_argument(
        "--sweep", type=int, metavar="CASES", help="random cases (default 40, virtual 8)"
    )
    parser.add_argument(
        "--rounds", type=int, help="measured calls per operator (default 200, virtual 3)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=180,
        metavar="SECONDS",
        help="until a rank counts as hanging",
    )
    parser.add_argument(
        "--from",
        dest="begin",
        choices=first_steps.ALL_NAMES,
        default=first_steps.NAMES[0],
        help="the first step to begin with",
    )
    parser.add_argument("--first-steps", action="store_true", help="only the first steps")
    parser.add_argument(
        "--tune",
        type=Path,
        metavar="FILE",
        help="measure the machine and the best numbers of cores instead, for ASCEND_MOE_TUNING=FILE",
    )
    parser.add_argument("--skip-first-steps", action="store_true", help="for those who know")
    parser.add_argument(
        "--rebuild", action="store_true", help="build the library even if it is from these sources"
    )
    parser.add_argument("--json", type=Path, default=Path("npu_check.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    if "LOCAL_RANK" not in os.environ and (options.ranks is None) == (options.virtual is None):
        parser.error("under torchrun, or with one of --ranks and --virtual")
    if options.first_steps and (options.skip_first_steps or OURS not in options.phases):
        parser.error("--first-steps: they are skipped, or ours is not to be played")
    if options.tune is not None and (options.first_steps or OURS not in options.phases):
        parser.error("--tune: it plays ours, behind the first steps")
    if options.tune is not None and not options.tune.resolve().parent.is_dir():
        parser.error(f"--tune {options.tune}: there is no folder {options.tune.resolve().parent}")
    if options.begin not in [step.name for step in first_steps.steps_of(options.servers)]:
        parser.error(f"--from {options.begin}: no step of {options.servers} servers")
    apart = options.servers > 1 and options.virtual is None
    if apart and ("LOCAL_RANK" in os.environ or None in (options.server, options.shared)):
        parser.error("--servers 2: on each of them, without torchrun, with --server and --shared")
    if not apart and (options.server, options.shared) != (None, None):
        parser.error("--server and --shared are for --servers 2 without --virtual")
    return options


def ranks_of(options: argparse.Namespace) -> Ranks:
    if "LOCAL_RANK" in os.environ:
        mine, world = [int(os.environ["LOCAL_RANK"])], int(os.environ["LOCAL_WORLD_SIZE"])
    else:
        world = options.virtual or options.ranks
        mine = list(range(world))
        if options.server is not None:
            half = world // 2
            mine = mine[half * options.server : half * (options.server + 1)]
    return Ranks(mine, world, options.patience)


def folder_of(options: argparse.Namespace) -> Path:
    """One folder for all supervisors: under torchrun they are children of one process."""
    if options.shared is not None:
        folder = options.shared / "npu_check"
        if options.server == 0:  # whose folder it is; the other waits for it
            folder.mkdir()
            return folder
        deadline = time.monotonic() + options.patience
        while not folder.is_dir():
            if time.monotonic() > deadline:
                raise OSError(
                    f"server 0 has made no {folder.name} there for {options.patience:g} s"
                )
            time.sleep(0.5)
        return folder
    if "LOCAL_RANK" not in os.environ:
        return Path(tempfile.mkdtemp(prefix="ascend-moe-npu-check-"))
    folder = Path(tempfile.gettempdir()) / f"ascend-moe-npu-check-{os.getuid()}-{os.getppid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
