"""elastic_info through the real torch_npu: those that are left get the oracle's bits; wrong words have a name."""

import re

OURS = {"ASCEND_MOE_KERNELS": "require", "ASCEND_MOE_TIMEOUT_S": "60"}


def test_those_that_are_left_in_every_mode(run):
    done = run("elastic.py", 6, environment=OURS)
    assert "6 random worlds equal on ranks [0, 2, 3] of 5" in done.stdout
    for rank in (0, 2, 3):
        before = re.search(rf"^rank {rank} before: (.*)", done.stdout, re.MULTILINE)
        assert before
        assert "X-47" in before[1]
        assert "word 3 is 5, needed: 4 MoE experts" in before[1]
        behind = re.search(rf"^rank {rank} behind: (.*)", done.stdout, re.MULTILINE)
        assert behind
        assert "E-15 elastic_info: word 3 is 5" in behind[1]
        assert f"on rank {rank} of group" in behind[1]
