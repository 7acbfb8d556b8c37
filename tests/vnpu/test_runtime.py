"""What a device is, without the two operators: tensors, the wall around memory, streams."""

import pytest


@pytest.mark.parametrize(("queue", "product"), [("0", "A3"), ("1", "A2"), ("2", "A3")])
def test_tensors(run, queue, product):
    done = run("tensors.py", product=product, environment={"TASK_QUEUE_ENABLE": queue})
    name = {"A3": "Ascend910_9392", "A2": "Ascend910B3"}[product]
    assert f"calculations equal on {name}" in done.stdout


@pytest.mark.parametrize("which", ["tensor", "window", "forked"])
def test_host_cannot_touch_device_memory(run, which):
    """Nor a window of another rank; a forked child dies as well and does not loop in the handler."""
    done = run("dereference.py", which, code=-11, timeout=60)
    assert "host code touched device memory" in done.stdout
    assert "1.0" not in done.stdout


def test_strict_memory_can_be_switched_off(run):
    assert "1.0" in run("dereference.py", environment={"ASCEND_MOE_VNPU_STRICT": "0"}).stdout


def test_delay_shows_a_missing_synchronisation(run):
    run("missing_synchronisation.py", environment={"ASCEND_MOE_VNPU_DELAY_US": "300000"})


@pytest.mark.parametrize("queue", ["0", "1"])
def test_a_refused_operator_stays_loud(run, queue):
    done = run("refused_operator.py", environment={"TASK_QUEUE_ENABLE": queue})
    assert "operator FastGelu is not available" in done.stdout
    assert "refused three times" in done.stdout
