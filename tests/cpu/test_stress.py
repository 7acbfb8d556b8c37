"""A bounded run of `cpu_stress`; ``python -m tests.cpu_stress`` runs for minutes."""

from __future__ import annotations

import cpu_stress
import pytest


@pytest.mark.parametrize(
    ("engine", "ranks", "seconds"),
    [("native", 4, 10), ("native", 2, 6), ("portable", 3, 8), ("mixed", 4, 10)],
)
def test_random_orders(engine: str, ranks: int, seconds: float):
    assert cpu_stress.run(engine, ranks, seconds, seed=ranks) >= 16
