"""The CPU executor against the vendor's kernels, bit for bit: one process per rank."""

from pathlib import Path

import pytest
import worlds
from golden import PATHS, GoldenCase


def _cases(ranks: int, tp: int) -> list[Path]:
    cases = [GoldenCase.load(path) for path in PATHS]
    return [
        path
        for path, case in zip(PATHS, cases, strict=True)
        if (case.ranks, case.tp) == (ranks, tp)
    ]


SHAPES = sorted({((case := GoldenCase.load(path)).ranks, case.tp) for path in PATHS})


@pytest.mark.parametrize(("ranks", "tp"), SHAPES)
def test_golden(ranks: int, tp: int):
    with worlds.world(ranks, tp=tp) as world:
        for path in _cases(ranks, tp):
            case = GoldenCase.load(path)
            world.run(_set_environment, case.product, case.contract)
            dispatched = world.run(
                worlds.dispatch, [case.dispatch_call(rank) for rank in range(ranks)]
            )
            for rank, output in enumerate(dispatched):
                case.check_dispatch(rank, output)
            calls = [case.combine_call(rank, output) for rank, output in enumerate(dispatched)]
            if case.product == "A2":  # the documents want dispatch's expand_scales on A2
                calls = [
                    call | {"expand_scales": output[6]}
                    for call, output in zip(calls, dispatched, strict=True)
                ]
            for rank, output in enumerate(world.run(worlds.combine, calls)):
                case.check_combine(rank, output)


def _set_environment(rank: int, product: str, contract: str) -> None:
    import os

    os.environ["ASCEND_MOE_PRODUCT"] = product
    os.environ["ASCEND_MOE_CONTRACT"] = contract
