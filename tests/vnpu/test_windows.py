"""The ways to HCCL's windows, each with the functions of the CANN that has them, and without."""

import re

import pytest

BUFFER = {"HCCL_BUFFSIZE": "4"}


def told(done) -> dict[tuple[str, int], str]:
    found = re.findall(r"^([\w-]+) rank (\d): (.*)", done.stdout, re.MULTILINE)
    return {(case, int(rank)): text for case, rank, text in found}


@pytest.fixture
def windows(run):
    """``windows(ranks, *cases, product=, **environment)`` -> {(case, rank): text}."""

    def start(ranks: int, *cases: str, product: str = "A3", **environment: str):
        done = run(
            "windows.py", str(ranks), *cases, product=product, environment=BUFFER | environment
        )
        texts = told(done)
        assert set(texts) == {(case, rank) for case in cases for rank in range(ranks)}
        return texts

    return start


@pytest.mark.parametrize(("ranks", "product"), [(4, "A3"), (3, "A2")])
def test_every_way_leads_to_the_same_windows(windows, ranks, product):
    """The tiling way knows HCCL's "in" buffer only, half of what the others show."""
    ways = {"kfc": 8, "channel": 8, "tiling": 4, "virtual-npu": 8}
    texts = windows(ranks, *ways, product=product)
    for way, megabytes in ways.items():
        for rank in range(ranks):
            assert texts[way, rank] == f"{way}, {megabytes} MB"


def test_a_group_of_one(windows):
    texts = windows(1, "kfc", "channel", "tiling")
    assert texts["channel", 0] == "channel, 8 MB"
    assert texts["tiling", 0] == "tiling, 4 MB"


@pytest.mark.parametrize(
    ("cann", "hidden", "way"),
    [
        ("9.1.0", "kfc", "channel"),
        ("9.2.0", "kfc,channel", "tiling"),
        ("8.1.RC1", "", "tiling"),
        ("8.5.0", "tiling", "virtual-npu"),
    ],
)
def test_the_first_way_that_this_cann_has(windows, cann, hidden, way):
    texts = windows(2, "any", ASCEND_MOE_VNPU_CANN=cann, ASCEND_MOE_VNPU_HIDE=hidden)
    for rank in (0, 1):
        assert texts["any", rank].startswith(f"{way}, ")


def test_missing_functions_are_named(windows):
    texts = windows(
        2, "kfc", "channel", "tiling", "shmem", ASCEND_MOE_VNPU_HIDE="kfc,channel,tiling"
    )
    for rank in (0, 1):
        assert texts["kfc", rank].startswith("561002 ")
        assert "group_ep vnpu_" in texts["kfc", rank]
        assert "CANN has no HcclCommGetHandleWithName, HcclGetHcclBuffer, " in texts["kfc", rank]
        assert "HcclGetRemoteIpcHcclBuf" in texts["kfc", rank]
        assert "ASCEND_MOE_KERNELS=off" in texts["kfc", rank]
        assert "HcclChannelAcquire, HcclChannelGetHcclBuffer" in texts["channel", rank]
        assert "CANN has no HcomGetCommHandleByGroup" in texts["tiling", rank]
        assert texts["shmem", rank].startswith("161002 ")
        assert "ASCEND_MOE_WINDOWS=shmem is none of kfc, channel, tiling" in texts["shmem", rank]


@pytest.mark.parametrize("version", ["8.50.0", "9.3.0"])
def test_private_structures_of_an_unknown_version_are_refused(windows, version):
    texts = windows(2, "tiling", ASCEND_MOE_VNPU_CANN=version)
    for rank in (0, 1):
        assert f"the private structures of CANN {version} are not known" in texts["tiling", rank]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"ASCEND_MOE_VNPU_HCCL_STREAMS": "40"}, "it has 16843009 remote ranks, the group 2 ranks"),
        ({"ASCEND_MOE_VNPU_HCCL_FAULT": "rank"}, "it says rank 1 of 2, the communicator rank 0"),
        ({"ASCEND_MOE_VNPU_HCCL_FAULT": "relation"}, "the relation to rank 1 is one to rank 2"),
    ],
)
def test_a_structure_that_contradicts_the_communicator_is_refused(windows, environment, why):
    texts = windows(2, "tiling", ASCEND_MOE_VNPU_CANN="8.5.0", **environment)
    assert "is not the known one" in texts["tiling", 0]
    assert why in texts["tiling", 0]
    assert texts["tiling", 1].startswith("561002 ")
