"""What no rank can check alone, before a call reaches the device."""

import pytest


@pytest.mark.parametrize("kernels", ["require", "off"])
def test_agreement(run, kernels):
    """A disagreement and a refusal reach every rank; the group's own buffer size is the one that counts.

    How much is needed depends on whose kernels will run.
    """
    environment = {"ASCEND_MOE_KERNELS": kernels}
    assert "agreement right" in run("agreement.py", environment=environment).stdout
