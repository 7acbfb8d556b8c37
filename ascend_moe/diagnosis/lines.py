"""From a log of any size to the lines worth reading, with their numbers.

A log is read in blocks and never kept. Only lines that can matter (`TRIGGERS`) are decoded. JSON strings
are unescaped, so a traceback in one JSON line becomes its lines again, all with the number of the line in
the file. What launchers, workers, containers and terminals put before or into a line is taken off.

Ranks repeat each other: of lines that differ in digits only, the first few are handed out one by one,
the rest is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

BLOCK_BYTES = 2**20
HELD_BYTES = 2**23  # a longer line is cut where a word ends
PIECE = 8000  # bytes of a line that are read at once; of a longer one, overlapping windows
OVERLAP = 1200
SAME_SHAPE_MAX = 64  # lines handed out that differ in digits only
DULL_SHAPES_MAX = 200_000  # kinds of lines without a trigger that are remembered as such
# How much is handed out: lines of known kinds, then of new kinds, then only such as name a failure plainly.
REPEATED_MAX, NEW_MAX, PLAIN_MAX = 8_000, 16_000, 24_000
READ_BYTES, PLAIN_READ_BYTES = 2**22, 2**23

# What a line must contain to be looked at.
TRIGGERS = tuple(
    text.encode()
    for text in (
        "rror",
        "EZ",
        "EI0",
        "EE",
        "EJ0",
        "EL0",
        "BUFFSIZE",
        "BuffSize",
        "BufferSize",
        "fail",
        "FAIL",
        "imeout",
        "imed out",
        "times out",
        "TIMEOUT",
        "kernel_name",
        "MTE",
        "aclnn",
        "EXPANSION_MODE",
        "driver",
        "Driver",
        "OpName:",
        "Cannot find bin",
        "FUNC:",
        "invalid",
        "warning ",
        "oC version",
        "oc version",
        "is not equal",
        "is required",
        "exception",
        "abnormal",
        "resource[",
        "signal",
        "did not come",
        "stayed full",
        "take over",
        "take up to",
        "made another call",
        "somebody else has written",
        "negative or zero",
        "ranks of ",
        "RoCE",
        "ROCE",
        "do not",
        "annot support",
        "ust be",
        "hould be",
        "not support",
    )
)
_PLAIN = re.compile(rb"E[EIJLZ]\d{4}|kernel_name=|BUFFSIZE is too|aclnn\w+ failed|tiling failed")


class Line(NamedTuple):
    """One line of the text behind a line of the file.

    number: of the line in the file, from 1. times: how many lines this one stands for.
    worker: what the prefix said about the process, for instance "rank0"; empty without one.
    """

    number: int
    text: str
    worker: str = ""
    times: int = 1


@dataclass
class _Shape:
    """How often a kind of line was seen, and one of those that were not handed out."""

    times: int = 0
    told: int = 0  # of which this many were handed out
    held: tuple[int, bytes] | None = None


def read_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """The lines worth reading among the first `limit` bytes of a stream."""
    shapes: dict[int, _Shape | None] = {}  # None: a kind without a trigger
    handed = spent = 0
    for number, raw in _pieces(stream, limit):
        key = hash(raw.translate(_DIGITS))
        shape = shapes.get(key)
        if shape is None:
            if key in shapes:
                continue
            if not any(trigger in raw for trigger in TRIGGERS):
                if len(shapes) < DULL_SHAPES_MAX:
                    shapes[key] = None
                continue
            if handed >= NEW_MAX or spent >= READ_BYTES:
                full = handed >= PLAIN_MAX or spent >= PLAIN_READ_BYTES
                if full or not _PLAIN.search(raw):
                    continue
            shape = shapes[key] = _Shape()
        shape.times += 1
        if shape.times == 1 or (shape.times <= SAME_SHAPE_MAX and handed < REPEATED_MAX):
            handed += 1
            spent += len(raw)
            shape.told += 1
            yield _line(number, raw)
        elif shape.held is None:
            shape.held = number, raw
    held = [shape for shape in shapes.values() if shape is not None and shape.held is not None]
    for shape in sorted(held, key=lambda shape: -shape.times)[:REPEATED_MAX]:
        assert shape.held is not None
        yield _line(*shape.held)._replace(times=shape.times - shape.told)


_DIGITS = bytes(ord("0") if chr(byte).isdigit() else byte for byte in range(256))
_ESCAPES = ((b"\\n", b"\n"), (b"\\r", b"\n"), (b"\\t", b" "), (b'\\"', b'"'), (b"\\/", b"/"))


def _pieces(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of lines, lines inside of JSON strings, and windows of what is longer."""
    for first, block in _blocks(stream, limit):
        for number, raw in enumerate(block.split(b"\n"), start=first):
            parts = [raw]
            if b"\\n" in raw or b'\\"' in raw:
                while b"\\\\" in raw:  # a JSON string in a JSON string
                    raw = raw.replace(b"\\\\", b"\\")
                for escape, plain in _ESCAPES:
                    raw = raw.replace(escape, plain)
                parts = raw.split(b"\n")
            for part in parts:
                if len(part) <= PIECE:
                    yield number, part
                else:
                    for start in range(0, len(part) - OVERLAP, PIECE - OVERLAP):
                        yield number, part[start : start + PIECE]


def _blocks(stream: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about BLOCK_BYTES at once, without the last end of line; with the first's number."""
    number, rest, taken = 1, b"", 0
    while taken < limit:
        block = stream.read(min(BLOCK_BYTES, limit - taken))
        if not block:
            break
        taken += len(block)
        rest += block
        end = rest.rfind(b"\n", max(len(rest) - len(block), 0))
        if end >= 0:
            yield number, rest[:end]
            number += rest.count(b"\n", 0, end + 1)
            rest = rest[end + 1 :]
        elif len(rest) > HELD_BYTES:
            end = max(rest.rfind(b"\\n"), rest.rfind(b" ")) + 1 or len(rest)
            yield number, rest[:end]
            rest = rest[end:]
    yield number, rest


def _line(number: int, raw: bytes) -> Line:
    text = raw.decode("utf-8", "replace")
    if "\\u00" in text:
        text = re.sub(r"\\u(00[0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
    text, worker = clean(" ".join(text.split("\n")))
    return Line(number, text, worker)


_COLOUR = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]{0,200}\x07|\x1b[()][A-Z0-9]|\[\d{1,3}(?:;\d{1,3})*m"
)
_STAMP = r"\[?\d{4}-\d\d-\d\d[T\- ]\d\d:\d\d:\d\d[\d.,:+Z]*\]?"
# What stands before the words of the program itself; the group is what names the process.
_PREFIX = re.compile(
    r"\s*(?:"
    r"\[((?:rank|default|local_rank)\s?\d+)\]:"  # torchrun
    r"|\[(\d{1,5})\]:|(\d{1,5}):(?=\s)"  # mpirun, srun -l
    r"|\(((?:Worker|VllmWorker|EngineCore|APIServer|RayWorker|Ray|DPEngine|ApiServer|SchedulerTP|"
    r"TP\d|DP\d|pid=|raylet|scheduler|Process)[^()]{0,80})\)"  # vLLM, ray, sglang
    r"|\[(?:pod|container)/([\w./-]{1,120})\]"  # kubectl logs --prefix
    r"|([\w.-]{1,80})\s+\|(?=\s)"  # docker compose
    rf"|{_STAMP}(?:\s+std(?:out|err)\s+[FP])?"  # a time, as of kubernetes too
    r"|(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)(?:\s+\d\d-\d\d \d\d:\d\d:\d\d)?\s*\[[\w.]+:\d+\]"
    r"|\[(?:TP|DP|EP|PP)\d+[^\]]{0,40}\]"
    r")(?=\s|$|:)\s?"
)


def clean(text: str) -> tuple[str, str]:
    """A line without colours and prefixes, and what they said about the process."""
    text = _COLOUR.sub("", text)
    worker = ""
    for _ in range(6):
        found = _PREFIX.match(text)
        if found is None or not found[0]:
            break
        named = next((group for group in found.groups() if group), "")
        worker = worker or named
        text = text[found.end() :]
    return text.strip(), worker
