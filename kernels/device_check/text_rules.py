"""What is read from the text of the sources: also where no compiler looks, and where no clang is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .findings import Finding

# Up to the name, and no function: what follows is an initialiser or the end. A constexpr is no variable.
STATIC = r"(?<!constexpr )\b(?:static|thread_local)\s(?![^(;]*\bconstexpr\b)[^(){};=]*\w\s*[={;\[]"

RULES = (
    # The first three: asc-devkit 9.1.0, guide, appendix on C++, page on language features.
    ("virtual", r"\bvirtual\b", "device code has no virtual functions or bases"),
    ("std", r"\bstd\s*::", "device code has no standard library"),
    ("typeid", r"\b(?:typeid|dynamic_cast)\b", "device code has no run-time type information"),
    ("static", STATIC, "a static variable: nothing outlives a launch on a core"),
)
INCLUDE = re.compile(r"\s*#\s*include\b\s*(.*)")
QUOTED = re.compile(r'"([^"]*)"')

NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def search(device: Path) -> Iterator[Finding]:
    """Every finding in the sources of a folder and those below it."""
    sources = sorted(path for path in device.rglob("*") if path.suffix in (".h", ".cpp"))
    known = {path.resolve() for path in sources}
    for path in sources:
        text = path.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            include = INCLUDE.match(line)
            if include is not None:
                quoted = QUOTED.match(include[1])
                if quoted is None or not (
                    quoted[1] == "kernel_operator.h" or (path.parent / quoted[1]).resolve() in known
                ):
                    yield Finding(
                        path, number, "include", f"{include[1]} is not a file of device code"
                    )
        code = NOT_CODE.sub(_blank, text)
        for rule, pattern, why in RULES:
            for match in re.finditer(pattern, code):
                yield Finding(path, code.count("\n", 0, match.start()) + 1, rule, why)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])
