"""Devices on several servers: how they are split, what HCCL answers, and that no server reaches another but by RDMA."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from vnpu_launch import READ_AT_IMPORT, REPOSITORY, clean_environment, require_virtual_npu

from ascend_moe.vnpu import VirtualNpuError, activation
from ascend_moe.vnpu.build import virtual_npu
from ascend_moe.vnpu.environment import variables
from ascend_moe.vnpu.servers import server_count


def split(devices: int, servers: int | None = None) -> dict[str, str]:
    more = {} if servers is None else {"ASCEND_MOE_VNPU_SERVERS": str(servers)}
    return {"ASCEND_MOE_VNPU_DEVICES": str(devices)} | more


# ---- the wish


@pytest.mark.parametrize(
    ("product", "devices", "servers"),
    [("A2", 8, 1), ("A2", 16, 2), ("A2", 8, 2), ("A2", 8, 8), ("A3", 16, 1), ("A3", 32, 2)],
)
def test_even_splits(product, devices, servers):
    assert server_count(servers, None, product=product, devices=devices) == servers
    assert server_count(None, str(servers), product=product, devices=devices) == servers
    assert server_count(servers, "77", product=product, devices=devices) == servers


WRONG = [
    ("A2", 16, "1", "16 devices on 1 are 16 each, a server of A2 has 8"),
    ("A2", 32, "2", "32 devices on 2 are 16 each, a server of A2 has 8"),
    ("A3", 32, "1", "32 devices on 1 are 32 each, a server of A3 has 16"),
    ("A3", 16, "3", "16 devices cannot be split evenly over 3"),
    ("A3", 4, "8", "4 devices cannot be split evenly over 8"),
    ("A3", 16, "0", "at least 1 is needed"),
    ("A3", 16, "-2", "at least 1 is needed"),
    ("A3", 16, "two", "at least 1 is needed"),
]


@pytest.mark.parametrize(("product", "devices", "servers", "why"), WRONG)
def test_wrong_splits_are_refused_by_name(product, devices, servers, why):
    with pytest.raises(VirtualNpuError) as refused:
        server_count(None, servers, product=product, devices=devices)
    assert str(refused.value) == f"ASCEND_MOE_VNPU_SERVERS={servers} servers: {why}"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_command_refuses_them(how):
    words = ["--product", "A2", "--devices", "12"]
    variable = {}
    if how == "option":
        words += ["--servers", "5"]
    else:
        variable = {"ASCEND_MOE_VNPU_SERVERS": "5"}
    done = subprocess.run(
        [sys.executable, "-m", "ascend_moe", "run", *words, __file__],
        cwd=REPOSITORY,
        env=clean_environment() | variable,
        capture_output=True,
        text=True,
        check=False,
    )
    source = "" if how == "option" else "ASCEND_MOE_VNPU_SERVERS="
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == f"ascend-moe run: {source}5 servers: 12 devices cannot be split evenly over 5"
    )


def test_the_call_refuses_them():
    with pytest.raises(VirtualNpuError, match="a server of A2 has 8"):
        activation.environment_of_run("A2", 16, 1)


@pytest.mark.usefixtures("run")
def test_what_is_played_is_said(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import os; print(os.environ['ASCEND_MOE_VNPU_SERVERS'])")
    done = subprocess.run(
        [sys.executable, "-m", "ascend_moe", "run", "--servers", "2", str(script)],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "virtual NPU (A3, 16 devices on 2 servers); " in done.stderr
    assert done.stdout == "2\n"


def test_a_split_that_is_set_below_the_command(run):
    """Where only the stand-in itself can say so."""
    done = run("tensors.py", environment=split(16, 5), code=None)
    assert done.returncode != 0
    assert "ASCEND_MOE_VNPU_SERVERS=5: 16 devices cannot be split so" in done.stdout


# ---- what HCCL and npu-smi say


def answers(run, product: str, devices: dict[str, str], *numbers: int, **variables: str):
    done = run(
        "servers.py",
        "answers",
        *numbers,
        product=product,
        environment=devices | {"HCCL_BUFFSIZE": "4"} | variables,
        fresh=not READ_AT_IMPORT.isdisjoint(variables),  # no import of torch for it: cheaper
    )
    found = dict(re.findall(r"^rank (\d+): (.*)", done.stdout, re.MULTILINE))
    assert len(found) == len(numbers)
    return [json.loads(found[str(rank)]) for rank in range(len(numbers))]


CLOS, MESH, A3 = 0, 1, 2


@pytest.mark.parametrize(
    ("product", "machine", "devices", "layers"),
    [
        # One server.
        ("A2", split(16), (0, 7), [([0, 1], [2], MESH)]),
        ("A3", split(16, 1), (0, 15), [([0, 1], [2], A3)]),
        # Two, the ranks 2 + 1.
        ("A2", split(16), (0, 7, 8), [([0, 1], [2, 1], MESH), ([0, 1, 2], [3], CLOS)]),
        ("A2", split(8, 2), (0, 3, 4), [([0, 1], [2, 1], MESH), ([0, 1, 2], [3], CLOS)]),
        # Two in one super-pod, and two of their own.
        ("A3", split(32), (0, 15, 16), [([0, 1], [2, 1], A3), ([0, 1, 2], [3], CLOS)]),
        (
            "A3",
            split(8, 2),
            (0, 3, 4),
            [([0, 1], [2, 1], A3), ([0, 1], [2, 1], CLOS), ([0, 1, 2], [3], CLOS)],
        ),
        # Ranks that do not follow the servers: in the order of servers, then of ranks.
        ("A2", split(8, 2), (4, 0, 5), [([0, 2], [1, 2], MESH), ([1, 0, 2], [3], CLOS)]),
    ],
)
def test_rank_graph(run, product, machine, devices, layers):
    """As rank 0 has it (hcomm v9.0.0, rank_graph.cc:609)."""
    found = answers(run, product, machine, *devices)[0]
    assert found["layers"] == list(range(len(layers)))
    assert [found[str(layer)] for layer in range(len(layers))] == [list(one) for one in layers]
    assert found["behind"] != []  # a status: there is no such layer
    assert isinstance(found["behind"], int)
    assert found["HcomGetL0TopoTypeEx"] == layers[0][2]


@pytest.mark.parametrize(
    ("product", "machine", "devices", "apart"),
    [
        ("A2", split(8, 2), (0, 1), None),
        ("A3", split(32), (0, 16), None),  # one super-pod
        ("A2", split(16), (7, 8), "2 servers, of 1 and 1 ranks; in this one rank 0"),
        ("A3", split(4, 2), (0, 1, 2), "2 servers, of 2 and 1 ranks; in this one ranks 0, 1"),
    ],
)
def test_windows_within_reach_alone(run, product, machine, devices, apart):
    """No provider is asked where some rank is behind a network card: it would decide about the links."""
    said = answers(run, product, machine, *devices)[0]["windows"]
    if apart is None:
        ways = {"tiling", "virtual-npu"} | ({"kfc"} if product == "A3" else set())
        assert {way for way, text in said.items() if way == text} == ways
        return
    for text in said.values():
        assert text.startswith("561002 ")
        assert "group_ep vnpu_" in text
        assert f": it stands on {apart}, and a core writes into windows over HCCS alone: " in text
        assert "ASCEND_MOE_KERNELS=off" in text


@pytest.mark.parametrize(
    ("product", "why"),
    [
        ("A2", {"tiling": "tiling: the group spans servers, so its mesh has no windows"}),
        ("A3", {"kfc": "kfc: there is no HCCS link to rank 1 "}),
    ],
)
def test_without_a_rank_graph_the_providers_see_it(run, product, why):
    """An HCCL before 8.5. The tiling way of A3 cannot: its structure has the address of an RDMA link."""
    hidden = {"ASCEND_MOE_VNPU_HIDE": "graph"}
    found = answers(run, product, split(4, 2), 0, 2, **hidden)[0]
    assert "layers" not in found
    why = why | {"virtual-npu": "virtual-npu: rank 1 is in another server"}
    for way, text in why.items():
        assert found["windows"][way].startswith("561002 ")
        assert text in found["windows"][way]


def smi(product: str, devices: int, servers: int | None) -> list[list[str]]:
    require_virtual_npu()
    clean = clean_environment()
    made = variables(virtual_npu(), clean, product=product, devices=devices, servers=servers)
    command = ["/usr/bin/env", "npu-smi", "info", "-t", "topo"]
    done = subprocess.run(command, env=clean | made, capture_output=True, text=True, check=True)
    assert "NA   = In another server" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("NPU")]
    return [row[1:-1] for row in rows]


@pytest.mark.parametrize(
    ("product", "devices", "servers", "together"),
    [("A2", 8, 2, 4), ("A2", 16, None, 8), ("A3", 32, None, 32), ("A3", 32, 2, 16)],
)
def test_npu_smi(product, devices, servers, together):
    for row, links in enumerate(smi(product, devices, servers)):
        for column, link in enumerate(links):
            same = row // together == column // together
            assert link == ("X" if row == column else "HCCS" if same else "NA")


# ---- who reaches whom


@pytest.mark.parametrize(
    ("mode", "said", "code"),
    [
        ("kernel", "window of rank 1: it is in another server and not mapped here", 0),
        ("copy", "is the HCCL window of a rank in another server, which is not mapped here", 0),
        (
            "touch",
            "[virtual NPU] an access to the HCCL window of a rank in another server: it is not mapped here, only RDMA "
            "reaches it",
            -11,
        ),
    ],
)
def test_windows_of_other_servers_are_not_mapped(run, mode, said, code):
    environment = split(2, 2) | {"HCCL_BUFFSIZE": "4"}
    done = run("servers.py", mode, 0, 1, environment=environment, code=code)
    assert said in done.stdout
    # The other server's address is as good as any within one.
    if mode == "copy":
        environment = split(2, 1) | {"HCCL_BUFFSIZE": "4"}
        near = run("servers.py", mode, 0, 1, environment=environment).stdout
        assert near.strip().splitlines()[-1] == "0"


def test_collectives(run):
    """Between servers as within one, with a small buffer, so that the data needs several rounds."""
    done = run("collectives.py", environment=split(4, 2) | {"HCCL_BUFFSIZE": "1"})
    assert "collectives right" in done.stdout


# ---- the operators

STOCK = {"ASCEND_MOE_KERNELS": "off"}


@pytest.mark.parametrize(
    ("program", "words", "product", "machine", "said"),
    [
        ("golden_cases.py", (8, 1, "A2"), "A2", split(8, 2), "3 golden cases equal"),
        ("random_worlds.py", (4, 1, 6, "A3"), "A3", split(4, 2), "6 random worlds equal"),
        ("random_worlds.py", (4, 2, 4, "A3"), "A3", split(4, 4), "4 random worlds equal"),
        pytest.param(
            *("random_worlds.py", (16, 1, 2, "A3", "hierarchy"), "A3", split(16, 2)),
            "2 random worlds equal",
            marks=pytest.mark.ci,
        ),
    ],
    ids=["A2", "A3", "A3-tp", "A3-hierarchy"],
)
def test_operators_of_cann_between_servers(run, program, words, product, machine, said):
    """The same bits as within one server: tests/vnpu/test_operators.py."""
    environment = machine | STOCK | {"HCCL_BUFFSIZE": "600"}
    assert said in run(program, *words, product=product, environment=environment).stdout


def test_ours_leave_such_a_group_to_cann(run):
    auto = split(2, 2) | {"ASCEND_MOE_KERNELS": "auto"}
    said = run("golden_cases.py", 2, 1, "A3", environment=auto).stdout
    assert "kernels=stock (" in said
    assert "it stands on 2 servers, of 1 and 1 ranks" in said
    require = split(2, 2) | {"ASCEND_MOE_KERNELS": "require"}
    done = run("golden_cases.py", 2, 1, "A3", environment=require, code=None)
    assert done.returncode != 0
    assert "ASCEND_MOE_KERNELS=require" in done.stdout
