"""Communicators between processes."""


def test_collectives(run):
    """With a small buffer, so that the data needs several rounds."""
    assert "collectives right" in run("collectives.py", environment={"HCCL_BUFFSIZE": "1"}).stdout
