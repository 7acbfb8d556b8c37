"""ascend_moe with the real torch_npu underneath."""


def test_drop_in(run):
    """Schema and Meta shapes are torch_npu's, npu and CPU bits are equal, install() checks and restores."""
    assert "drop-in right" in run("drop_in.py", fresh=True).stdout
