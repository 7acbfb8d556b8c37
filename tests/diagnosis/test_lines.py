"""From any bytes to lines: long ones, JSON, prefixes, and a hundred megabytes in bounded memory."""

import io
import json
import subprocess
import sys

import pytest
from failed_runs import TOO_SMALL, explained

from ascend_moe.diagnosis.lines import HELD_BYTES, PIECE, SAME_SHAPE_MAX, clean, read_lines

ERROR = "RuntimeError: call aclnnMoeDistributeDispatchV4 failed, error code is 561002"


def read(data: bytes, limit: int = 2**40):
    return list(read_lines(io.BytesIO(data), limit))


@pytest.mark.parametrize("before", [0, 3900, PIECE - 40, PIECE, 50_000, HELD_BYTES + 5])
@pytest.mark.parametrize("filler", ["x", "word "], ids=["one word", "words"])
def test_the_end_of_a_long_line_is_read(before, filler):
    text = (filler * (before // len(filler) + 1))[:before] + " " + TOO_SMALL.format("", 294)
    assert "export HCCL_BUFFSIZE=293" in explained(text)[0].details


def test_a_traceback_in_one_json_line_becomes_its_lines():
    inner = f'Traceback\n  File "a.py", line 3\n\x1b[31m{ERROR}\x1b[0m\n{TOO_SMALL.format("", 294)}'
    for document in (inner, json.dumps({"error": inner})):
        log = "noise\n" + json.dumps({"message": document, "rank": 0}) + "\n"
        found = explained(log)
        assert [finding.name for finding in found] == ["HCCL_BUFFSIZE is too SMALL", "561002"]
        assert {finding.line for finding in found} == {2}


@pytest.mark.parametrize(
    ("text", "worker", "rest"),
    [
        ("[rank12]: words", "rank12", "words"),
        ("(Worker_TP0_EP3 pid=9) ERROR 11-07 06:32:37 [a_b.py:7] words", "Worker_TP0_EP3 pid=9", "words"),
        ("2026-01-02T03:04:05.1Z stdout F words", "", "words"),
        ("decode-2  | [rank0]: words", "decode-2", "words"),
        ("\x1b[1;31mwords\x1b[0m", "", "words"),
        ("[0;36mwords", "", "words"),
        ("X-29 error comm_alg: is 'a'", "", "X-29 error comm_alg: is 'a'"),
        ("EZ9999[PID: 7] (EZ9999):  words", "", "EZ9999[PID: 7] (EZ9999):  words"),
        ("call aclnnX failed: words", "", "call aclnnX failed: words"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_prefixes_are_taken_off(text, worker, rest):
    assert clean(text) == (rest, worker)


def test_lines_that_differ_in_digits_only_are_counted():
    lines = "".join(f"[rank{index}]: {ERROR} at step {index}\n" for index in range(5000))
    found = read(lines.encode())
    assert sum(line.times for line in found) == 5000
    shapes = len({len(str(index)) for index in range(5000)})
    assert len(found) <= (SAME_SHAPE_MAX + 1) * shapes
    (finding,) = explained(lines)
    assert finding.times == 5000


def test_numbers_of_lines_are_those_of_the_file():
    data = b"a\nb\n\n" + ERROR.encode() + b"\n" + b"c\n" * 500_000 + b"error code is 507014"
    assert [line.number for line in read(data)] == [4, 500_005]


def test_no_more_than_the_limit_is_read():
    assert read(b"x" * 100 + b"\n" + ERROR.encode(), limit=90) == []


class Endless(io.RawIOBase):
    """A stream of zeros, as /dev/zero; counts what is taken."""

    taken = 0

    def read(self, size=-1):
        self.taken += size
        return bytes(size)


def test_an_endless_line_is_bounded():
    stream = Endless()
    assert not list(read_lines(stream, 2**26))
    assert stream.taken == 2**26


REPEATED = f"(Worker_TP0_EP0 pid=940663) ERROR 11-07 06:32:37 [a.py:671] {ERROR}\n"
BIG = {
    "noise": "INFO 11-07 06:32:37 [shm_broadcast.py:548] nothing here at all, a plain line of a log\n",
    "one failure again and again": REPEATED,
    "many failures": "".join(
        f"[rank{index % 16}]: EZ9999: moeExpertNum should be in (0, 16], but got {'q' * (index % 97)}={index}\n"
        for index in range(20_000)
    ),
    "one line": REPEATED.replace("\n", "\\n"),
    "words of errors": "".join(
        "Error " + " ".join(hex(index * 7919 + word * 104_729) for word in range(9)) + "\n"
        for index in range(10_000)
    ),
}
# Processor time, because other tests share the machine; memory beside that of a small log.
RUN = """
import resource, sys
from ascend_moe.cli import main
code = main(["explain", sys.argv[1], "--json"])
usage = resource.getrusage(resource.RUSAGE_SELF)
print(code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.parametrize("kind", BIG)
def test_a_hundred_megabytes(kind, tmp_path):
    small, big = tmp_path / "small", tmp_path / "big"
    small.write_text(REPEATED)
    text = BIG[kind].encode()
    with big.open("wb") as stream:
        for _ in range(100 * 10**6 // len(text)):
            stream.write(text)
    used = {}
    for path in (small, big):
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(path)],
            capture_output=True,
            text=True,
            timeout=280,
            check=True,
        )
        code, seconds, megabytes = done.stderr.splitlines()[-1].split()
        used[path] = int(code), float(seconds), int(megabytes)
    assert used[big][0] in (0, 2)
    assert used[big][1] < 20
    assert used[big][2] < used[small][2] + 120
