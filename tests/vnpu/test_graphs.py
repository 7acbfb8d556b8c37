"""The operators in graphs: captured, compiled, converted."""

import pytest


@pytest.mark.parametrize("queue", ["0", "1"])
def test_capture(run, queue):
    """torch_npu itself refuses a capture with TASK_QUEUE_ENABLE=2."""
    assert "graphs right" in run("graphs.py", environment={"TASK_QUEUE_ENABLE": queue}).stdout


@pytest.mark.parametrize("mode", ["max-autotune", "reduce-overhead", "npugraph_ex"])
def test_compile(run, mode):
    """max-autotune also checks the serialised GE graph against the calls."""
    assert f"{mode} right" in run("compiled.py", mode).stdout
