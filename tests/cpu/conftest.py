"""Worlds whose rows travel through shared memory, and over torch.distributed; ``RANKS`` of the file says how many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import worlds

TRANSPORTS = {"windows": {}, "distributed": worlds.DISTRIBUTED}


@pytest.fixture(scope="module", params=TRANSPORTS.values(), ids=TRANSPORTS)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of all ranks. A file for one transport has a fixture of this name."""
    return request.param


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[worlds.World]:
    """Serves all tests of a file: after each its group must still work."""
    with worlds.world(request.module.RANKS, environments=[environment]) as opened:
        yield opened


@pytest.fixture
def doomed(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[worlds.World]:
    """A world of its own for a test that breaks it."""
    with worlds.world(request.module.RANKS, environments=[environment]) as opened:
        yield opened
