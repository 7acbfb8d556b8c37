"""The two operators, called as torch_npu's own functions on npu tensors of several processes."""

import pytest


@pytest.mark.parametrize(
    ("ranks", "tp", "product", "cases"),
    [
        (2, 1, "A3", 3),
        (4, 1, "A3", 8),
        (4, 2, "A3", 2),
        (8, 2, "A3", 2),
        (8, 1, "A2", 3),
        (16, 1, "A2", 1),
    ],
)
def test_vendor_kernels(run, ranks, tp, product, cases):
    """Bit for bit what the vendor's kernels returned (tests/data/golden)."""
    done = run("golden_cases.py", ranks, tp, product, product=product)
    assert f"{cases} golden cases equal" in done.stdout


@pytest.mark.parametrize(("ranks", "tp", "product"), [(4, 1, "A3"), (4, 2, "A3"), (3, 1, "A2")])
def test_oracle(run, ranks, tp, product):
    """Bit for bit what the oracle returns, for random legal calls of every mode, strided tensors too."""
    done = run("random_worlds.py", ranks, tp, 25, product, product=product)
    assert "25 random worlds equal" in done.stdout
