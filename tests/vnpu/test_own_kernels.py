"""Our AscendC kernels behind the stock torch_npu call: through libcust_opapi.so, in hostsim."""

import json
import re

import pytest

REQUIRED = {"ASCEND_MOE_KERNELS": "require"}


def case(run, name, ranks, *, fresh=False, **environment):
    done = run("own_kernels.py", name, ranks, environment=REQUIRED | environment, fresh=fresh)
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
    said = case(run, "few_cores", 2, fresh=True, **log).stdout
    assert said.count("kernels=ours (ABI 4, 2 ranks, windows of 400 MB through kfc)") == 3
    stock = run("golden_cases.py", 2, 1, "A3", environment={"ASCEND_MOE_KERNELS": "off"}).stdout
    assert stock.count("kernels=stock (all ranks: ASCEND_MOE_KERNELS=off; libopapi.so)") == 1


@pytest.mark.parametrize("remotes", ["0", "1"])
def test_windows_of_8_5(run, remotes):
    """The one way that 8.5 has, with the count of remote ranks as HCCL writes it, and counted."""
    patch = f"general:2980:4:{remotes}"
    cann = {"ASCEND_MOE_VNPU_CANN": "8.5.0", "ASCEND_MOE_VNPU_HCCL_PATCH": patch}
    said = case(run, "few_cores", 2, **cann).stdout
    assert "kernels=ours (ABI 4, 2 ranks, windows of 200 MB through tiling)" in said


def test_phases_are_profiled_as_those_of_cann(run, tmp_path):
    """Level acl, an own type registered once per name; kernels report themselves."""
    file = tmp_path / "records"
    case(run, "layers", 2, ASCEND_MOE_VNPU_MSPROF=str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    registered = [line for line in lines if "registered" in line]
    ours = {line["type"]: line["registered"] for line in registered}
    records = [line for line in lines if line.get("type") in ours and "magic" in line]
    assert {name.removesuffix("GetWorkspaceSize") for name in ours.values()} >= {
        "aclnnMoeDistributeDispatch",
        "aclnnMoeDistributeCombine",
    }
    assert len(registered) == 2 * len(ours)  # two processes
    assert {line["level"] for line in registered + records} == {20000}
    assert all(0x50000 <= kind < 0x60000 for kind in ours)
    assert {(record["magic"], record["item"]) for record in records} == {(0x5A5A, 0)}
    assert len(records) > len(registered)


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


def test_without_our_kernels_the_first_call_is_eager_too(run):
    """This rank may have to tell others that it does not run ours."""
    case(run, "first_call_captured", 2, ASCEND_MOE_KERNELS="off")


def test_foreign_use_of_the_buffer_is_named(run):
    case(run, "foreign_use", 2)


def test_foreign_use_is_seen_without_a_launch(run, tmp_path):
    trace = tmp_path / "trace"
    case(run, "foreign_use_is_seen_at_rest", 2, ASCEND_MOE_VNPU_TRACE=str(trace))
    assert trace.read_text().count('"ascend_moe_dispatch"') == 2 * 2


@pytest.mark.parametrize("queue", ["0", "1"])
def test_a_launch_that_fails_is_an_error_of_its_call(run, queue):
    """With the task queue torch_npu raises and leaves the text to stderr, as for every failure of a phase two."""
    environment = {
        "ASCEND_MOE_VNPU_REFUSE_LAUNCH": "ascend_moe_dispatch",
        "TASK_QUEUE_ENABLE": queue,
    }
    said = case(run, "refused_launch", 2, **environment).stdout
    for rank in (0, 1):
        assert re.search(rf"^rank {rank}: .*aclnnMoeDistributeDispatchV4", said, re.MULTILINE)
    why = r"ascend_moe_dispatch on \d+ cores could not be launched: error 107000 of the runtime"
    assert len(re.findall(f"{why}.*refused on purpose", said)) >= 2


def test_an_older_error_is_not_taken_for_one_of_a_launch(run):
    case(run, "older_error", 2, TASK_QUEUE_ENABLE="0")


@pytest.mark.parametrize("hccl", [pytest.param("0", marks=pytest.mark.ci), "1836"])
def test_kernels_end_before_the_hardware_ends_them(run, hccl):
    """Whatever HCCL_EXEC_TIMEOUT says, also "never"; and no more than half of a very short limit is given away."""
    limits = {"ASCEND_MOE_VNPU_OP_TIMEOUT_S": "8", "HCCL_EXEC_TIMEOUT": hccl}
    case(run, "late_for_the_hardware", 3, **limits)


def test_a_group_is_opened_behind_what_runs_already(run):
    late = {"ASCEND_MOE_VNPU_DELAY_US": "200000", "TASK_QUEUE_ENABLE": "0"}
    case(run, "after_a_warm_up", 2, **late)


def test_groups_of_two_devices_in_one_process(run, tmp_path):
    """Each is opened once."""
    trace = tmp_path / "trace"
    case(run, "two_devices", 2, ASCEND_MOE_VNPU_TRACE=str(trace))
    assert trace.read_text().count('"ascend_moe_meet"') == 2 * 2


def test_ours_or_stock_is_decided_once(run):
    case(run, "the_choice_stands", 2)


def test_unknown_choice(run):
    done = run("own_kernels.py", "layers", 2, environment={"ASCEND_MOE_KERNELS": "maybe"}, code=1)
    assert "ASCEND_MOE_KERNELS=maybe, allowed: off, auto, require" in done.stdout
