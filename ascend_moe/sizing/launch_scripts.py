"""Where a launch script sets HCCL_BUFFSIZE, and to what.

Read as text, whatever the language: shell, YAML, a Dockerfile, JSON, TOML, Python. Only what is written out counts: a
number, or a quoted text. What is computed (`$SIZE`, `str(mb)`) is nobody's to judge here, and neither is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ascend_moe.contract.window import VARIABLE
from ascend_moe.inputs import open_input

FILE_MAX_BYTES = 2**24
_COMMENT = re.compile(r"\s*(?:#|//|;)")
_LITERAL = r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[-+]?\d[^\s"',;)}\]&|]*))"""
_SET = re.compile(rf"""(?<![\w${{]){VARIABLE}["']?\]?\s*(?:=(?!=)|:)\s*{_LITERAL}""")
_ENV = re.compile(rf"\s*ENV\s+{VARIABLE}\s+{_LITERAL}", re.IGNORECASE)  # of a Dockerfile
_NAMED = re.compile(rf"""["']?name["']?\s*:\s*["']?{VARIABLE}["']?\s*,?\s*$""")  # of Kubernetes:
_VALUE = re.compile(rf"""["']?value["']?\s*:\s*{_LITERAL}""")  # on the line behind the name
_COMPUTED = re.compile(r"[$`{%]")


class Setting(NamedTuple):
    """A line of a script, and the text that the variable gets."""

    line: int
    text: str


def settings(path: Path) -> list[Setting]:
    """The settings of a file, in order.

    Raises ValueError with one sentence if it cannot be read or is too large.
    """
    try:
        with open_input(path) as stream:
            data = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise ValueError(f"{path} is too large for a launch script")
    return list(_settings(data.decode(errors="replace").splitlines()))


def _settings(lines: list[str]) -> Iterator[Setting]:
    named = False
    for number, line in enumerate(lines, 1):
        if _COMMENT.match(line):
            continue
        found = [_VALUE.search(line)] if named else [*_SET.finditer(line), _ENV.match(line)]
        for match in filter(None, found):
            text = next(group for group in match.groups() if group is not None)
            if not _COMPUTED.search(text):
                yield Setting(number, text)
        named = bool(_NAMED.search(line))
