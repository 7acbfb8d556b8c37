"""The CPU executor against the vendor's kernels, bit for bit: one process per rank."""

from collections.abc import Iterator

import pytest
import worlds
from golden import PATHS, GoldenCase


def _cases() -> Iterator[GoldenCase]:
    return map(GoldenCase.load, PATHS)


SHAPES = sorted({(case.ranks, case.tp) for case in _cases()})


@pytest.mark.parametrize(("ranks", "tp"), SHAPES)
def test_golden(ranks: int, tp: int):
    with worlds.world(ranks, tp=tp) as world:
        for case in _cases():
            if (case.ranks, case.tp) == (ranks, tp):
                _check(world, case)


def _check(world: worlds.World, case: GoldenCase) -> None:
    variables = {"ASCEND_MOE_PRODUCT": case.product, "ASCEND_MOE_CONTRACT": case.contract}
    calls = [case.dispatch_call(rank) for rank in range(case.ranks)]
    dispatched = world.run(worlds.under, variables, worlds.dispatch, calls)
    for rank, output in enumerate(dispatched):
        case.check_dispatch(rank, output)
    calls = [case.combine_call(rank, output) for rank, output in enumerate(dispatched)]
    if case.product == "A2":  # the documents want dispatch's expand_scales on A2
        for call, output in zip(calls, dispatched, strict=True):
            call["expand_scales"] = output[6]
    combined = world.run(worlds.under, variables, worlds.combine, calls)
    for rank, output in enumerate(combined):
        case.check_combine(rank, output)
