"""Which CANN is installed: read from its version files, without loading anything of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

STAND_IN = "ASCEND_MOE_VNPU"  # on the virtual NPU: the home of the stand-in CANN
HOME_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
DEFAULT_HOMES = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann")
VERSION_FILES = (
    "*/ascend_toolkit_install.info",
    "ascend_toolkit_install.info",
    "compiler/version.info",
    "runtime/version.info",
    "opp/version.info",
    "version.cfg",
)
# The operators are a package of their own since CANN 8.5, upgraded apart from the toolkit. Source: ops-transformer
# 3a280bcc3, cmake/package.cmake:119.
OPERATORS_FILES = (
    "share/info/ops_transformer/version.info",
    "*/share/info/ops_transformer/version.info",
)
# AscendCL under its name of today and the one that stays after 2026-12-30.
ASCENDCL = ("libascendcl.so", "libacl_rt.so")


def cann_home(env: Mapping[str, str] | None = None) -> Path | None:
    """The CANN directory that the environment names, else an installed default."""
    variables = os.environ if env is None else env
    named = [variables[name] for name in HOME_VARIABLES if variables.get(name)]
    for candidate in (*named, *DEFAULT_HOMES):
        if Path(candidate).is_dir():
            return Path(candidate)
    return None


def is_stand_in(home: Path | None, env: Mapping[str, str]) -> bool:
    """Whether that CANN is the virtual NPU's, which plays a version of CANN and is none."""
    return home is not None and env.get(STAND_IN) == str(home)


def cann_version_text(home: Path | None = None) -> str | None:
    """The version as CANN writes it, such as 8.2.RC1, or None if it cannot be read."""
    return _version(cann_home() if home is None else home, VERSION_FILES)


def operators_version_text(home: Path | None = None) -> str | None:
    """The version of the package with the operators, or None where it has none of its own."""
    return _version(cann_home() if home is None else home, OPERATORS_FILES)


def cann_version(home: Path | None = None) -> tuple[int, int] | None:
    """(8, 2) for 8.2.RC1, or None."""
    return numbers(cann_version_text(home))


def numbers(text: str | None) -> tuple[int, int] | None:
    """The first two numbers of a version."""
    found = re.match(r"(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2])) if found else None


def package_versions(home: Path | None) -> dict[str, str]:
    """The versions of CANN's packages (runtime, hcomm, ...), which are installed apart from each other since 9.0.

    Read from ``share/info/PACKAGE/version.info``; empty where there are none.
    """
    found: dict[str, str] = {}
    if home is None:
        return found
    for path in sorted(home.glob("share/info/*/version.info")):
        version = re.search(r"(?im)^\s*version\s*=\s*(\S+)", path.read_text(errors="replace"))
        if version:
            found[path.parent.name] = version[1]
    return found


def _version(home: Path | None, files: tuple[str, ...]) -> str | None:
    if home is None:
        return None
    for pattern in files:
        for path in sorted(home.glob(pattern)):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            found = re.search(
                r"(?im)^\s*(?:version|toolkit_running_version)\s*=\s*\[?\s*(\d+\.\d+\S*?)\]?\s*$",
                text,
            )
            if found:
                return found[1]
    return None
