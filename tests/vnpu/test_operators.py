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


@pytest.mark.parametrize("product", ["A2", "A3"])
def test_hierarchy(run, product):
    """Both orders of summation, both contracts of A2, two servers of eight (A2) or one of sixteen (A3)."""
    environment = {
        "HCCL_BUFFSIZE": "600"
    }  # hierarchy needs more than 404 MB on A3, whatever the sizes
    done = run(
        "random_worlds.py",
        16,
        1,
        12,
        product,
        "hierarchy",
        product=product,
        environment=environment,
    )
    assert "12 random worlds equal" in done.stdout


def test_generations(run):
    """aclnn V2, V3 and V4 of both operators, called without torch_npu in between."""
    assert "V2, V3 and V4 equal the oracle" in run("generations.py").stdout


@pytest.mark.parametrize("product", ["A2", "A3"])
def test_attributes(run, product):
    """performance_info on both products, packed int4 tokens on A2."""
    done = run("attributes.py", product, product=product)
    assert f"attributes right on {product}" in done.stdout


def test_window_sizes(run):
    done = run("window_sizes.py", environment={"HCCL_BUFFSIZE": "1"})
    assert "the operators need what the formulas say" in done.stdout
