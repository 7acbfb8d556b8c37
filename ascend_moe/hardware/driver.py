"""Which NPU driver is installed, from the file it leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

VERSION_FILES = (
    Path("/usr/local/Ascend/driver/version.info"),
    Path("/etc/ascend_install.info"),
)


def driver_version(files: tuple[Path, ...] = VERSION_FILES) -> str | None:
    """The version as the driver writes it, such as 25.0.rc1.1, or None."""
    for path in files:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found = re.search(r"(?im)^\s*(?:version|driver_version)\s*=\s*(\d[\w.]*)", text)
        if found:
            return found[1]
    return None
