"""The oracle against the vendor's kernels, bit for bit."""

from pathlib import Path

import pytest
from golden import PATHS, GoldenCase

from ascend_moe.reference import combine_world, dispatch_world


def test_all_cases_are_here():
    assert len(PATHS) == 19


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_golden(path: Path):
    case = GoldenCase.load(path)
    options = {"product": case.product, "contract": case.contract}
    dispatched = dispatch_world([case.dispatch_call(rank) for rank in range(case.ranks)], **options)
    for rank, output in enumerate(dispatched):
        case.check_dispatch(rank, output)
    combined = combine_world(
        [case.combine_call(rank, output) for rank, output in enumerate(dispatched)], **options
    )
    for rank, output in enumerate(combined):
        case.check_combine(rank, output)
