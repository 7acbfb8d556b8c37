"""A few rounds of ``scripts/attack``; and its judge sees what it must not let pass."""

from __future__ import annotations

import cpu_attack
import pytest

from ascend_moe.contract.errors import PeerError

NAMED = PeerError("rank 1 did not arrive within 3 s", [1])


@pytest.mark.parametrize("way", cpu_attack.WAYS)
@pytest.mark.parametrize("kind", ["interrupt", "kill", "refuse"])
def test_a_round(kind: str, way: str):
    before = cpu_attack.left_behind()
    assert cpu_attack.attack(kind, way, seed=1)[1] == []
    assert cpu_attack.left_behind() == before


@pytest.mark.ci
@pytest.mark.parametrize("way", cpu_attack.WAYS)
def test_a_stopped_rank(way: str):
    assert cpu_attack.attack("stop", way, seed=1)[1] == []


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        ({"found": NAMED, "later": [NAMED] * 3, "when": 1.0}, ""),
        ({"found": NAMED, "later": [NAMED, "right", NAMED], "when": 1.0}, "rows after"),
        ({"found": AssertionError("wrong rows"), "later": [], "when": 1.0}, "wrong rows"),
        ({"found": PeerError("x", [0, 1]), "later": [NAMED], "when": 1.0}, "does not name rank 1"),
        ({"found": NAMED, "later": [NAMED], "when": 60.0}, "told 60.0 s after"),
        (EOFError(), "ended with"),
    ],
)
def test_the_judge(outcome: object, found: str):
    said = cpu_attack._judge("kill", 0, 1, outcome, struck=0.0)
    assert found in " ".join(said) if found else said == []
