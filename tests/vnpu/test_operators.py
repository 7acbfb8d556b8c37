"""The two operators, called as torch_npu's own functions on npu tensors of several processes.

Whose kernels run is chosen by ASCEND_MOE_KERNELS: *ours* in hostsim, or *stock*, plain C++ in place of CANN's.
"""

import pytest

OURS = {"ASCEND_MOE_KERNELS": "require"}
STOCK = {"ASCEND_MOE_KERNELS": "off"}


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
    """Bit for bit what the vendor's kernels returned (tests/data/golden); between A2 servers stock, ours in test_a2."""
    done = run(
        "golden_cases.py",
        ranks,
        tp,
        product,
        product=product,
        environment=OURS if (ranks, product) != (16, "A2") else STOCK,
    )
    assert f"{cases} golden cases equal" in done.stdout


@pytest.mark.parametrize(
    ("ranks", "tp", "product", "worlds", "kernels"),
    [
        (4, 1, "A3", 16, OURS),
        (4, 2, "A3", 12, OURS),
        pytest.param(16, 1, "A3", 2, OURS, marks=pytest.mark.ci),
        (4, 1, "A3", 8, STOCK),
        (4, 2, "A3", 6, STOCK),
        (3, 1, "A2", 10, OURS),
        (3, 1, "A2", 10, STOCK),
    ],
    ids=["ours", "ours-tp", "ours-16", "stock", "stock-tp", "ours-A2", "stock-A2"],
)
def test_oracle(run, ranks, tp, product, worlds, kernels):
    """Bit for bit what the oracle returns, for random legal calls of every mode, strided tensors too."""
    done = run("random_worlds.py", ranks, tp, worlds, product, product=product, environment=kernels)
    assert f"{worlds} random worlds equal" in done.stdout


@pytest.mark.parametrize(
    ("product", "kernels"),
    [
        ("A2", STOCK),
        ("A3", STOCK),
        ("A2", OURS),
        pytest.param("A3", OURS, marks=pytest.mark.ci),
    ],
    ids=["A2-stock", "A3-stock", "A2-ours", "A3-ours"],
)
def test_hierarchy(run, product, kernels):
    """Both orders of summation, two servers of eight (A2) or one of sixteen (A3).

    CANN's own operators with both contracts of A2; ours follow that of 2026.
    """
    words = ("random_worlds.py", 16, 1, 6, product, "hierarchy")
    # CANN's need more than 404 MB on A3, whatever the sizes.
    environment = {"HCCL_BUFFSIZE": "600"} | kernels
    done = run(*words, product=product, environment=environment, timeout=280)
    assert "6 random worlds equal" in done.stdout


@pytest.mark.parametrize("kernels", [OURS, STOCK], ids=["ours", "stock"])
def test_generations(run, kernels):
    """aclnn V2, V3 and V4 of both operators, called without torch_npu in between."""
    assert "V2, V3 and V4 equal the oracle" in run("generations.py", environment=kernels).stdout


@pytest.mark.parametrize("kernels", [OURS, STOCK], ids=["ours", "stock"])
@pytest.mark.parametrize("product", ["A2", "A3"])
def test_attributes(run, product, kernels):
    """performance_info on both products, and packed int4 tokens on A2."""
    done = run("attributes.py", product, product=product, environment=kernels)
    assert f"attributes right on {product}" in done.stdout


def test_window_sizes(run):
    environment = {"HCCL_BUFFSIZE": "1"} | STOCK
    done = run("window_sizes.py", environment=environment)
    assert "the operators need what the formulas say" in done.stdout
