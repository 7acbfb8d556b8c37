"""docs/build-npu.md lists every name of AscendC that device code uses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/build-npu.md").read_text()
DEVICE = "\n".join(
    path.read_text() for path in sorted((ROOT / "kernels/device").iterdir()) if path.is_file()
)


def test_every_name_of_ascendc_has_its_header():
    used = set(re.findall(r"AscendC::(\w+)", DEVICE))
    used |= set(re.findall(r"\.(AllocTensor|EnQue|DeQue|FreeTensor|GetValue|SetValue)\b", DEVICE))
    listed = set(re.findall(r"`(\w+)`", PAGE))
    assert used - listed == set()
    assert len(used) > 40


def test_every_flag_of_the_build_is_listed():
    flags = re.findall(r"\s(--?[a-z][\w-]*)", (ROOT / "kernels/npu/toolchain.cmake").read_text())
    assert flags
    for flag in flags:
        assert f"`{flag}" in PAGE, flag
