"""The ways to HCCL's windows, each with the functions of the CANN that has them, and without."""

import re

import pytest

BUFFER = {"HCCL_BUFFSIZE": "4"}
PATCH = "ASCEND_MOE_VNPU_HCCL_PATCH"


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


A3_OF_9 = {"kfc": 8, "tiling": 4, "virtual-npu": 8}
WITHOUT_KFC = {"tiling": 4, "virtual-npu": 8}


@pytest.mark.parametrize(
    ("cann", "product", "ranks", "ways"),
    [
        ("8.5.0", "A3", 3, WITHOUT_KFC),
        ("9.0.0", "A3", 4, A3_OF_9),
        ("9.1.0", "A3", 3, A3_OF_9),
        ("9.0.0", "A2", 3, WITHOUT_KFC),
    ],
)
def test_every_way_leads_to_the_same_windows(windows, cann, product, ranks, ways):
    """The tiling way knows HCCL's "in" buffer only, half of what the others show."""
    texts = windows(ranks, *ways, "any", product=product, ASCEND_MOE_VNPU_CANN=cann)
    for rank in range(ranks):
        for way, megabytes in ways.items():
            assert texts[way, rank] == f"{way}, {megabytes} MB"
        first, megabytes = next(iter(ways.items()))
        assert texts["any", rank] == f"{first}, {megabytes} MB"


def test_a_group_of_one(windows):
    texts = windows(1, "kfc", "tiling")
    assert texts["kfc", 0] == "kfc, 8 MB"
    assert texts["tiling", 0] == "tiling, 4 MB"


@pytest.mark.parametrize(
    ("cann", "hidden", "way"), [("9.1.0", "kfc", "tiling"), ("8.5.0", "tiling", "virtual-npu")]
)
def test_the_first_way_that_is_there(windows, cann, hidden, way):
    texts = windows(2, "any", ASCEND_MOE_VNPU_CANN=cann, ASCEND_MOE_VNPU_HIDE=hidden)
    for rank in (0, 1):
        assert texts["any", rank].startswith(f"{way}, ")


def test_missing_functions_are_named(windows):
    texts = windows(2, "kfc", "tiling", "shmem", ASCEND_MOE_VNPU_HIDE="kfc,tiling")
    for rank in (0, 1):
        assert texts["kfc", rank].startswith("561002 ")
        assert "group_ep vnpu_" in texts["kfc", rank]
        assert "CANN has no HcclCommGetHandleWithName, HcclKfcAllocOpArgs, " in texts["kfc", rank]
        assert "HcclGetRemoteIpcHcclBuf" in texts["kfc", rank]
        assert "ASCEND_MOE_KERNELS=off" in texts["kfc", rank]
        assert "CANN has no HcomGetCommHandleByGroup" in texts["tiling", rank]
        assert texts["shmem", rank].startswith("161002 ")
        assert "ASCEND_MOE_WINDOWS=shmem is none of kfc, tiling" in texts["shmem", rank]


@pytest.mark.parametrize(
    ("hcomm", "asked"),
    [
        ("8.50.0", "8.50.0"),
        ("9.3.0", "9.3.0"),
        ("", None),  # no such package: runtime's is known
    ],
)
def test_private_structures_of_an_unknown_version_are_refused(windows, hcomm, asked):
    """The version is that of HCCL's package, where there is one."""
    texts = windows(2, "tiling", ASCEND_MOE_VNPU_HCOMM=hcomm)
    for rank in (0, 1):
        if asked is None:
            assert texts["tiling", rank] == "tiling, 4 MB"
        else:
            refused = f"the private structures of HCCL {asked} are not known"
            assert refused in texts["tiling", rank]


def test_the_number_of_remote_ranks_is_not_believed(windows):
    """HCCL writes 0, which the other tests have."""
    texts = windows(2, "tiling", **{PATCH: "general:2980:4:1"})
    for rank in (0, 1):
        assert texts["tiling", rank] == "tiling, 4 MB"


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({PATCH: "general:2980:4:3"}, "it has 3 remote ranks, the group 2 ranks"),
        ({"ASCEND_MOE_VNPU_HCCL_STREAMS": "40"}, "it has 16843009 remote ranks, the group 2 ranks"),
        ({PATCH: "general:16:4:5"}, "it says rank 5 of 2, the communicator rank 0"),
        ({PATCH: "relation:0:4:2"}, "the relation to rank 1 is one to rank 2"),
    ],
)
def test_a_structure_that_contradicts_the_communicator_is_refused(windows, environment, why):
    texts = windows(2, "tiling", ASCEND_MOE_VNPU_CANN="8.5.0", **environment)
    assert "is not the known one" in texts["tiling", 0]
    assert why in texts["tiling", 0]
    assert texts["tiling", 1].startswith("561002 ")
