"""The first steps of scripts/npu_check between two servers.

Every finding from what ranks would have seen; then all of it on the virtual NPU, with one rank on each server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from vnpu_launch import clean_environment, require_virtual_npu

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))

from hardware_kit import command, first_steps  # noqa: E402
from hardware_kit.findings import judge  # noqa: E402
from hardware_kit.server_findings import ADVICE, FULL_QUEUE, NETWORK  # noqa: E402

NONCE = 7
WELL = {
    "status": 0,
    "text": "",
    "record": [0] * 8,
    "nonce": NONCE,
    "waited_s": 0.1,
    "limit_s": 3.0,
    "peer": 0,
    "turns": 1,
    "burst": 1,
    "bytes": 64,
    "queues": 1,
    "wrong": 0,
    "first_wrong": 0,
}


def gave_up(
    epoch: int, peer: int, reason: int = 0, link: int = NETWORK, waited_s: float = 3.0
) -> dict:
    """A run whose kernel waited in vain."""
    record = [NONCE, epoch, peer + 1, 0, 0, reason, link, 0]
    text = f"rank {peer} did not come"
    return WELL | {
        "status": 561002,
        "text": text,
        "record": record,
        "peer": peer,
        "waited_s": waited_s,
    }


def seen(*runs: dict) -> dict[int, dict]:
    common = {"provider": "rdma", "window_bytes": 200 << 20}
    return {rank: common | {"runs": [run]} for rank, run in enumerate(runs)}


FOUND = {
    "no-queues": ("queues", {0: {"no_windows": "capability 3 without bit 2"}, 1: {}}),
    "ping-pong-fails": ("message", seen(WELL | {"status": 507011, "text": "no binary"}, WELL)),
    "message-lost": ("message", seen(gave_up(4, 1), gave_up(5, 0))),
    "queue-full": ("wrap", seen(gave_up(4, 1, FULL_QUEUE), gave_up(4, 0))),
    "message-differs": ("burst", seen(WELL | {"wrong": 3, "first_wrong": 17, "peer": 1}, WELL)),
    "silent-rank-not-noticed": ("silent", seen(WELL, WELL)),
    "silent-rank-misnamed": ("silent", seen(gave_up(1, 1, link=0), WELL)),
}


@pytest.mark.parametrize("finding", ADVICE)
def test_a_finding(finding):
    step, ranks = FOUND[finding]
    verdict = judge(step, ranks, 2, "rank 0: failed", virtual=False)
    assert verdict.finding == finding
    assert verdict.evidence


@pytest.mark.parametrize(
    ("leader", "other", "way"),
    [
        (
            (4,),
            (4,),
            "from rank 0 to rank 1, in turn 4",
        ),  # the leader waits for the answer to 4, which 1 never saw
        ((4,), (5,), "from rank 1 to rank 0, in turn 4"),  # 1 has answered 4
        ((4,), None, "from rank 1 to rank 0, in turn 4"),  # and ended
        (None, (4,), "from rank 0 to rank 1, in turn 4"),
    ],
)
def test_which_way_a_message_was_lost(leader, other, way):
    runs = [
        WELL if epoch is None else gave_up(*epoch, 1 - rank)
        for rank, epoch in enumerate((leader, other))
    ]
    verdict = judge("message", seen(*runs), 2, "", virtual=False)
    assert (verdict.finding, verdict.evidence[: len(way)]) == ("message-lost", way)


def test_a_limit_that_does_not_hold():
    late = gave_up(1, 1, waited_s=14)
    assert judge("silent", seen(late, WELL), 2, "", virtual=False).finding == "gives-up-late"
    assert judge("silent", seen(gave_up(1, 1), WELL), 2, "", virtual=False).finding == ""


def test_a_rank_that_leaves_nothing():
    verdict = judge("message", {0: seen(WELL)[0]}, 2, "rank 1: ended with code -6", virtual=False)
    assert verdict == ("rank-failed", "rank 1: ended with code -6")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ranks", "16", "--servers", "2"], "with --server and --shared"),
        (["--virtual", "2", "--server", "1"], "are for --servers 2 without --virtual"),
        (["--virtual", "2", "--from", "wrap"], "--from wrap: no step of 1 servers"),
        (
            ["--virtual", "2", "--servers", "2", "--product", "A2", "--tune", "x.json"],
            "--tune: two servers are whole with 16 ranks",
        ),
        (["--virtual", "3", "--servers", "2", "--product", "A2"], "2 and 16 are possible on A2 on 2 servers"),
        (["--virtual", "18", "--servers", "2", "--product", "A2"], "2 and 16 are possible on A2 on 2 servers"),
        (
            ["--ranks", "16", "--servers", "2", "--server", "0", "--shared", "/nowhere", "--product", "A2"],
            "--shared /nowhere: No such file or directory",
        ),
    ],
)  # fmt: skip
def test_usage(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    try:
        code = command.main("", arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/npu_check", *arguments],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def check(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, dict, str]:
    require_virtual_npu()
    file = tmp_path / "found.json"
    two = ("--virtual", "2", "--servers", "2", "--product", "A2", "--json", str(file))
    done = run(*two, *arguments, TMPDIR=str(tmp_path), **environment)
    assert done.returncode in (0, 1), done.stderr
    assert list(tmp_path.iterdir()) == [file]
    return done.returncode, json.loads(file.read_text()), done.stdout


def test_on_the_virtual_npu(tmp_path):
    code, found, said = check(tmp_path, "--sweep", "3")
    assert [(step["step"], step["finding"]) for step in found["first_steps"]] == [
        (step.name, "") for step in first_steps.BETWEEN_SERVERS
    ]
    assert (code, found["virtual"], found["good"], found["servers"]) == (0, True, True, 2)
    assert (
        "71680 posts each way" in said
    )  # more than 2^16, and than the 32768 elements of the queue
    assert "no hierarchy and nothing of CANN's: they need whole servers, 16 ranks, not 2" in said
    assert {check["name"]: check["ours"] for check in found["checks"]} == {
        f"mesh00{number}": "equal" for number in range(3)
    }
    assert "rank 1 did not come (time limit 3 s). It is in another server" in said


@pytest.mark.parametrize(
    ("dead", "way"), [("0:1:0", "from rank 0 to rank 1"), ("1:0:0", "from rank 1 to rank 0")]
)
def test_a_dead_queue(tmp_path, dead, way):
    code, found, said = check(
        tmp_path, "--from", "message", ASCEND_MOE_VNPU_DEAD_QUEUE=dead, ASCEND_MOE_TIMEOUT_S="2"
    )
    (step,) = found["first_steps"]
    assert (code, step["step"], step["finding"]) == (1, "message", "message-lost")
    assert step["evidence"].startswith(f"{way}, in turn 1 of 1 messages of 64 bytes and a tag: ")
    assert ADVICE["message-lost"] in said


@pytest.mark.ci
def test_layers_on_whole_servers(tmp_path):
    """Hierarchy and full mesh, recorded results and random calls; the first steps are in the tests above."""
    require_virtual_npu()
    file = tmp_path / "found.json"
    whole = ("--virtual", "16", "--servers", "2", "--product", "A2", "--skip-first-steps")
    done = run(*whole, "--sweep", "7", "--json", str(file), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert all(check["ours"] == check["stock"] == "equal" for check in found["checks"])
    assert {check["kind"] for check in found["checks"]} == {"golden", "sweep"}
    assert len(found["checks"]) == 19
    assert list(tmp_path.iterdir()) == [file]
