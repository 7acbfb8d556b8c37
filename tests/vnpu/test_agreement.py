"""What no rank can check alone, before a call reaches the device."""


def test_agreement(run):
    """A disagreement and a refusal reach every rank; the group's own buffer size is the one that counts."""
    assert "agreement right" in run("agreement.py").stdout
