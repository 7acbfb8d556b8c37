"""The command line of scripts/clients."""

from __future__ import annotations

import argparse
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from ascend_moe.vnpu import VirtualNpuError
from ascend_moe.vnpu.activation import environment_of_run
from ascend_moe.vnpu.world import World
from client_adapters import cann_recipes, judge, sgl_kernel_npu, vllm_ascend

ADAPTERS = (vllm_ascend, sgl_kernel_npu, cann_recipes)
RANKS = (2, 4)


def main(description: str | None) -> int:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT")
    arguments = parser.parse_args()
    chosen = []
    for checkout in arguments.checkouts:
        adapter = next((one for one in ADAPTERS if (checkout / one.FILE).is_file()), None)
        if adapter is None:
            known = ", ".join(f"{one.NAME} ({one.FILE})" for one in ADAPTERS)
            parser.error(f"{checkout} is no checkout of a known project: {known}")
        chosen.append((adapter, checkout.resolve()))
    try:
        environments = {
            product: environment_of_run(product, max(RANKS)) for product in ("A2", "A3")
        }
    except VirtualNpuError as error:
        parser.exit(1, f"scripts/clients: {error}\n")
    print(f"torch_npu {version('torch_npu')}, torch {version('torch')}, virtual NPU")
    wrong = 0
    for adapter, checkout in chosen:
        print(f"\n{adapter.NAME} {_commit(checkout)}: {adapter.WHAT}")
        for product, environment in environments.items():
            for size in RANKS:
                wrong += _on_ranks(adapter, checkout, product, size, environment)
    print(f"\n{'all right' if not wrong else f'{wrong} are not right'}")
    return int(wrong > 0)


def _on_ranks(
    adapter: ModuleType, checkout: Path, product: str, size: int, environment: dict[str, str]
) -> int:
    """Print a line per case; the number of those that are not right."""
    wrong = 0
    world: World | None = None
    for case in adapter.CASES:
        if product not in case.products:
            continue
        if world is None or world.closed:
            world = World(size, environment)
        outcomes = world(judge.on_rank, adapter.__name__, str(checkout), case)
        errors = [(rank, outcome.error) for rank, outcome in enumerate(outcomes) if outcome.error]
        line = f"  {product}, {size} ranks, {case.name}: "
        if errors:
            wrong += 1
            rank, error = errors[0]
            print(f"{line}FAILED on rank {rank}: {type(error).__name__}: {error}", flush=True)
            world.close()
        else:
            print(f"{line}{outcomes[0].value}", flush=True)
    if world is not None and not world.closed:
        world.close()
    return wrong


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "(no git)"
