"""Our AscendC kernels behind the stock torch_npu call: through libcust_opapi.so, in hostsim."""

import json

import pytest

REQUIRED = {"ASCEND_MOE_KERNELS": "require"}


def case(run, name, ranks, **environment):
    done = run("own_kernels.py", name, ranks, environment=REQUIRED | environment)
    assert f"{name} right on {ranks} ranks" in done.stdout
    return done


@pytest.mark.parametrize("ranks", [2, 4])
def test_layers_in_flight(run, ranks, tmp_path):
    """The trace has every launch, with what the simulator counted."""
    trace = tmp_path / "trace"
    case(run, "layers", ranks, ASCEND_MOE_VNPU_TRACE=str(trace))
    launches = [json.loads(line) for line in trace.read_text().splitlines()]
    by_rank = {
        (launch["rank"], launch["kernel"].removeprefix("ascend_moe_")): 0 for launch in launches
    }
    for launch in launches:
        by_rank[launch["rank"], launch["kernel"].removeprefix("ascend_moe_")] += 1
    once = {"meet": 1, "open": 1, "dispatch": 11, "combine": 11}
    assert by_rank == {
        (rank, kernel): times for rank in range(ranks) for kernel, times in once.items()
    }
    assert all(
        launch["counters"]["read_remote"] > 0
        for launch in launches
        if launch["kernel"] == "ascend_moe_dispatch"
    )


def test_no_more_cores_than_granted(run, tmp_path):
    trace = tmp_path / "trace"
    case(run, "few_cores", 2, ASCEND_MOE_VNPU_TRACE=str(trace))
    launches = [json.loads(line) for line in trace.read_text().splitlines()]
    assert len(launches) == 8
    assert {launch["cores"] for launch in launches} == {3}


def test_one_line_says_whose_kernels_run(run):
    """On rank 0, and in CANN's log on every rank."""
    log = {"ASCEND_SLOG_PRINT_TO_STDOUT": "1", "ASCEND_GLOBAL_LOG_LEVEL": "1"}
    said = case(run, "few_cores", 2, **log).stdout
    assert said.count("kernels=ours (ABI 2, 2 ranks, windows of 400 MB through kfc)") == 3
    stock = run("golden_cases.py", 2, 1, "A3", environment={"ASCEND_MOE_KERNELS": "off"}).stdout
    assert stock.count("kernels=stock (ASCEND_MOE_KERNELS=off; libopapi.so)") == 1


@pytest.mark.parametrize("queue", ["0", "1"])
def test_replays_read_new_inputs(run, queue):
    """torch_npu itself refuses a capture with TASK_QUEUE_ENABLE=2."""
    case(run, "replays", 2, TASK_QUEUE_ENABLE=queue)


def test_layers_in_queue_mode_2(run):
    case(run, "layers", 2, TASK_QUEUE_ENABLE="2")


def test_a_group_is_not_opened_during_a_capture(run):
    case(run, "first_call_captured", 2)


def test_a_group_is_made_again(run):
    case(run, "made_again", 2)


def test_a_rank_without_our_library_is_named(run):
    case(run, "one_without", 3, HCCL_CONNECT_TIMEOUT="4")


def test_foreign_use_of_the_buffer_is_named(run):
    case(run, "foreign_use", 2)


def test_ours_or_stock_is_decided_once(run):
    case(run, "the_choice_stands", 2)


def test_unknown_choice(run):
    done = run("own_kernels.py", "layers", 2, environment={"ASCEND_MOE_KERNELS": "maybe"}, code=1)
    assert "ASCEND_MOE_KERNELS=maybe, allowed: off, auto, require" in done.stdout


def test_required_on_a2(run):
    done = run("own_kernels.py", "layers", 2, product="A2", environment=REQUIRED, code=1)
    assert "ASCEND_MOE_KERNELS=require, but our kernels cannot serve" in done.stdout
    assert "they are written for A3, this is A2" in done.stdout
