"""Windows and queues between servers: what HCCL's private context holds, and every check of it, each broken once.

Four ranks, two in each of two servers. Offsets are those of HCCL's headers, as kernels/standin/hccl builds them.
"""

from __future__ import annotations

import json
import re

import pytest
from vnpu_launch import READ_AT_IMPORT

DEVICES = (0, 1, 2, 3)
SERVERS = {"ASCEND_MOE_VNPU_DEVICES": "4", "ASCEND_MOE_VNPU_SERVERS": "2"}
MB, W = 1 << 20, 4 << 20


def told(run, *cases: dict[str, object], devices=DEVICES, product="A2", **environment: str):
    """{(case, rank): text}"""
    done = run(
        "rdma.py",
        json.dumps(cases),
        *devices,
        product=product,
        environment=SERVERS | {"HCCL_BUFFSIZE": "4"} | environment,
        fresh=not READ_AT_IMPORT.isdisjoint(environment),  # no import of torch for it: cheaper
    )
    found = re.findall(r"^(.+?) rank (\d+): (.*)", done.stdout, re.MULTILINE)
    texts = {(case, int(rank)): text for case, rank, text in found}
    assert set(texts) >= {(case["name"], rank) for case in cases for rank in range(len(devices))}
    return texts


@pytest.mark.parametrize("cann", [{}, {"ASCEND_MOE_VNPU_CANN": "8.5.0"}], ids=["9.0.0", "8.5.0"])
def test_windows_of_the_own_server_and_queues_to_the_others(run, cann):
    texts = told(run, {"name": "whole"}, **cann)
    for rank in range(4):
        found = json.loads(texts["whole", rank])
        here, there = ((0, 1), (2, 3)) if rank < 2 else ((2, 3), (0, 1))
        assert found["rank"] == [rank, 4]
        assert found["bytes"] == W
        assert found["tables"] == [rank, 4]
        # Windows: a core writes into those of its server, and what the other server has written is not here.
        assert [peer for peer in range(4) if found["base"][peer]] == list(here)
        assert found["base"][rank] == found["own"]
        assert found["output"] == found["own"] + W
        assert found["came"] == [1 + peer if peer in here else 0 for peer in range(4)]
        # Queues: of the depth and the elements that HCCL asks for, empty, with keys.
        for peer in here:
            assert found["queues"][peer]["depth"] == 0
            assert found["queues"][peer]["keys"] == [0] * 4
        for peer in there:
            queue = found["queues"][peer]
            assert (queue["depth"], queue["element"], queue["words"]) == (32768, 64, [0, 0])
            assert queue["last element"] == 0
            assert all(queue["keys"])
        numbers = [found["queues"][peer]["number"] for peer in there]
        assert len(set(numbers)) == 2


def test_on_a3_queues_lead_along_the_rail(run):
    """Of a rank of the other server with another number in it nothing is known."""
    texts = told(run, {"name": "whole"}, *ON_A3, product="A3")
    for rank in range(4):
        found = json.loads(texts["whole", rank])
        mate, rail = rank ^ 1, rank ^ 2
        assert (found["rank"], found["bytes"], found["tables"]) == ([rank, 4], W, [rank, 4])
        assert [peer for peer in range(4) if found["base"][peer]] == sorted((rank, mate))
        assert found["output"] == found["own"] + W
        for peer in range(4):
            queue = found["queues"][peer]
            assert queue["depth"] == (32768 if peer == rail else 0)
            assert all(queue["keys"]) == (peer == rail)
    for case in ON_A3:
        assert case["why"] in texts[case["name"], 0]


TAIL = 2122704
ON_A3 = [
    {"name": patch, "patch": patch, "why": why}
    for patch, why in (
        ("general:16:4:7", "structure: rank 7, must be 0"),
        (f"general:{TAIL}:8:48", "structure: bytes of the queue tables 48, must be 64 or more"),
        (f"general:{TAIL + 8}:8:0", "structure: queue tables 0x0, must be an address"),
        ("general:32:8:512", "own input: "),
        (
            f"general:{2984 + 16 * 2 + 8}:8:0",
            "relation to rank 2: relation 0x0, must be an address",
        ),
        ("relation:0:4:3", "relation to rank 1: rank 3, must be 1"),
        ("relation:8:8:512", "input of rank 1 in this server: "),
        ("send:128:4:0,send:148:4:0", "send queue 0 of rank 2: depth 0, must be a power of two"),
        ("send:212:4:128", "send queue of rank 3 of the other servers: depth 128, must be 0"),
    )
]

RANK_2, PEER_2 = 120 * 2, 24 * 4 * 2  # the first rank of the other server, as rank 0 sees it
SEND_2 = 64 * 2
# What is spoilt, and what rank 0 says of it.
BROKEN = [
    ("mesh:16:4:7", "structure: rank 7, must be 0"),
    ("mesh:20:4:5", "structure: number of ranks 5, must be 4"),
    ("mesh:24:8:8388608", f"structure: buffer bytes 8388608, must be {W}"),
    ("mesh:24:8:100", f"structure: buffer bytes 100, must be {W}"),
    ("mesh:8872:1:0", "structure: flag of several servers 0, must be 1"),
    ("mesh:8872:1:2", "structure: flag of several servers 2, must be 1"),
    ("mesh:8888:8:464", "structure: bytes of the table of ranks 464, must be 480"),
    ("mesh:8880:8:0", "structure: table of ranks 0x0, must be an address aligned to 8 bytes"),
    ("mesh:8880:8:4096", "table of ranks cannot be read at 0x1000"),
    ("mesh:8920:8:4", "structure: bytes of the capability 4, must be 8 or more"),
    ("mesh:8912:8:0", "structure: capability 0x0, must be an address aligned to 8 bytes"),
    ("mesh:8912:8:4096", "capability cannot be read at 0x1000"),
    (
        "capability:0:8:3",
        "no vector core may post RDMA writes here (capability 3 without bit 2): the driver is too old (25.0.RC1.1 or "
        "later can)",
    ),
    ("mesh:8896:8:48", "structure: bytes of the queue tables 48, must be 64 or more"),
    ("mesh:8904:8:0", "structure: queue tables 0x0, must be an address aligned to 8 bytes"),
    ("mesh:8904:8:4096", "queue tables cannot be read at 0x1000"),
    ("queues:0:4:3", "queue tables: rank 3, must be 0"),
    ("queues:4:4:8", "queue tables: number of ranks 8, must be 4"),
    ("queues:8:4:0", "queue tables: queues to a rank 0, must be 1 to 32"),
    ("queues:8:4:33", "queue tables: queues to a rank 33, must be 1 to 32"),
    ("queues:12:4:72", "queue tables: bytes of a send queue 72, must be 64"),
    ("queues:20:4:24", "queue tables: bytes of a rank's regions 24, must be 16"),
    ("queues:24:8:0", "queue tables: send queues 0x0, must be an address aligned to 8 bytes"),
    ("queues:24:8:4096", "send queues cannot be read at 0x1000"),
    ("queues:56:8:0", "queue tables: regions 0x0, must be an address aligned to 8 bytes"),
    ("queues:56:8:4096", "regions cannot be read at 0x1000"),
    (f"peers:{16 * 2}:4:3", "regions of rank 2: number 3, must be 4"),
    (f"peers:{16 * 2 + 4}:4:32", "regions of rank 2: bytes of one 32, must be 24"),
    (f"peers:{16 * 2 + 8}:8:0", "regions of rank 2: list 0x0, must be an address"),
    (f"peers:{16 * 2 + 8}:8:4096", "regions of rank 2 cannot be read at 0x1000"),
    (f"send:{SEND_2 + 20}:4:0", "send queue 0 of rank 2: depth 0, must be a power of two from 128"),
    (f"send:{SEND_2 + 20}:4:96", "send queue 0 of rank 2: depth 96, must be a power of two"),
    (f"send:{SEND_2 + 20}:4:64", "depth 64, must be a power of two from 128 to 32768"),
    (f"send:{SEND_2 + 20}:4:65536", "depth 65536, must be a power of two from 128 to 32768"),
    (
        f"send:{SEND_2 + 16}:4:32",
        "send queue 0 of rank 2: bytes of an element 32, must be 48 or more",
    ),
    (f"send:{SEND_2 + 16}:4:56", "bytes of an element 56, must be 48 or more, a multiple of 16"),
    (f"send:{SEND_2}:4:{1 << 24}", "send queue 0 of rank 2: number 16777216, must be of 24 bits"),
    (f"send:{SEND_2 + 40}:4:1", "send queue 0 of rank 2: doorbell mode 1, must be 0"),
    (f"send:{SEND_2 + 56}:4:8", "send queue 0 of rank 2: service level 8, must be 0 to 7"),
    (f"send:{SEND_2 + 8}:8:0", "send queue 0 of rank 2: elements 0x0, must be an address"),
    (f"send:{SEND_2 + 24}:8:0", "send queue 0 of rank 2: head 0x0, must be an address"),
    (
        f"send:{SEND_2 + 32}:8:6",
        "send queue 0 of rank 2: tail 0x6, must be an address aligned to 4",
    ),
    (
        f"send:{SEND_2 + 48}:8:4",
        "send queue 0 of rank 2: doorbell 0x4, must be an address aligned to 8",
    ),
    (
        f"send:{SEND_2 + 24}:8:64,send:{SEND_2 + 64 + 24}:8:64",
        "two send queues have their head at 0x40",
    ),
    ("send:84:4:128", "send queue of rank 1 in this server: depth 128, must be 0"),
    ("send:20:4:128", "send queue of rank 0 in this server: depth 128, must be 0"),
    (f"regions:{PEER_2 + 24}:8:512", f"input of rank 2: bytes 512, must be {W}"),
    (
        f"regions:{PEER_2 + 24 + 8}:8:100",
        "input of rank 2: address 0x64, must be an address aligned to 512",
    ),
    (f"regions:{PEER_2 + 24 + 8}:8:512", "input of rank 2: 0x200 with key "),
    (f"regions:{PEER_2 + 24 + 16}:4:9", "with key 9 in the queue tables, "),
    (
        f"regions:{PEER_2 + 24 + 16}:4:0,ranks:{RANK_2 + 16}:4:0",
        "input of rank 2: key 0, must be not 0",
    ),
    (f"regions:{PEER_2 + 72}:8:512", f"output of rank 2: bytes 512, must be {W}"),
    (
        f"regions:{PEER_2 + 16}:4:0,ranks:{RANK_2 + 48 + 16}:4:0",
        "own input to rank 2: key 0, must be not 0",
    ),
    (
        f"regions:{PEER_2 + 48 + 16}:4:0,ranks:{RANK_2 + 72 + 16}:4:0",
        "own output to rank 2: key 0, must be not 0",
    ),
    (
        f"regions:{PEER_2 + 48 + 8}:8:512,ranks:{RANK_2 + 72 + 8}:8:512",
        "own output to rank 2: address 512, must be ",
    ),
    (
        f"regions:{PEER_2 + 8}:8:512,ranks:{RANK_2 + 48 + 8}:8:512",
        "own input to rank 2: address 512, must be ",
    ),
    (f"ranks:{RANK_2 + 16}:4:77", "with key 77 in the table of ranks"),
    ("regions:136:4:5,ranks:136:4:5", "input of rank 1 in this server: key 5, must be 0"),
    ("regions:120:8:512", f"input of rank 1 in this server: bytes 512, must be {W}"),
    ("regions:0:8:512", f"own input: bytes 512, must be {W}"),
    ("regions:8:8:512,ranks:56:8:512", "own input: 0x200, HcclGetHcclBuffer says 0x"),
    ("regions:56:8:0,ranks:80:8:0", "own output: address 0x0, must be an address aligned to 512"),
]


def test_every_check_of_the_context(run):
    """One field spoilt at a time, in a communicator of its own."""
    cases = [{"name": patch, "patch": patch} for patch, _ in BROKEN]
    texts = told(run, {"name": "whole"}, *cases)
    assert texts["whole", 0].startswith("{")
    for patch, why in BROKEN:
        text = texts[patch, 0]
        assert text.startswith("561002 "), (patch, text)
        assert "no way to its queues between servers. rdma: " in text, patch
        assert why in text, (patch, text)
        assert "HCCL's private context is not the known one: " in text, patch
        assert "ASCEND_MOE_KERNELS=off runs CANN's own kernels" in text, patch


def test_without_a_buffer_to_compare_with(run):
    """CANN 8.5, where HcclGetHcclBuffer must not be called."""
    odd = {"name": "odd", "patch": "mesh:24:8:100"}
    other = {"name": "other", "patch": f"mesh:24:8:{2 * W}"}
    texts = told(run, odd, other, ASCEND_MOE_VNPU_CANN="8.5.0")
    assert "structure: buffer bytes 100, must be a multiple of 512" in texts["odd", 0]
    assert f"own input: bytes {W}, must be {2 * W}" in texts["other", 0]


def test_the_first_call_decides_about_the_links(run):
    """Asked for full mesh before, HCCL gives that again: RDMA also within a server, no queues of a vector core."""
    texts = told(run, {"name": "late", "first": True})
    for rank in range(4):
        assert texts["late links", rank] == "out of reach, a key"
        assert "capability 3 without bit 2" in texts["late", rank]
        assert (
            "an operator that is not hierarchy was the first of this group" in texts["late", rank]
        )


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        (
            {"ASCEND_MOE_VNPU_HCOMM": "9.3.0"},
            "of HCCL 9.3.0 are not known (8.5, 9.0, 9.1, 9.2 are)",
        ),
        ({"ASCEND_MOE_VNPU_HIDE": "graph"}, "CANN has no rank graph, which says who is where"),
        ({"ASCEND_MOE_VNPU_SERVERS": "1"}, "flag of several servers 0, must be 1"),
        (
            {"product": "A3", "ASCEND_MOE_VNPU_CANN": "8.5.0"},
            "of HCCL 8.5.0 are not known (9.0, 9.1, 9.2 are)",
        ),
    ],
)
def test_where_there_is_none(run, environment, why):
    texts = told(run, {"name": "none"}, devices=(0, 2), **environment)
    for rank in (0, 1):
        assert texts["none", rank].startswith("561002 ")
        assert why in texts["none", rank]
