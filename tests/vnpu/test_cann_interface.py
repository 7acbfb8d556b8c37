"""Nothing that the host library takes from CANN is played without a source, or otherwise than it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_moe.vnpu.build import virtual_npu
from ascend_moe.vnpu.environment import CANN_VERSIONS

ROOT = Path(__file__).parents[2]
OP_API = ROOT / "kernels/op_api"
sys.path.insert(0, str(ROOT / "scripts"))

from generators.cann_interface import BETWEEN, FIELD, LINKED, LOOKED_UP, ROWS, Row  # noqa: E402

NEW_IN_9 = ("HcclCommGetHandleWithName", "HcclKfc", "HcclCreateOpResCtx", "HcclGetRemoteIpcHcclBuf")
MANGLED = {
    "error_message::ReportUserDefinedErrMsg": "_ZN13error_message23ReportUserDefinedErrMsgEPKcS1_z"
}
MB, W = 1 << 20, 4 << 20


def code(path: Path) -> str:
    """A source without its comments."""
    return re.sub(r"//.*", "", path.read_text())


SOURCES = {path: code(path) for path in OP_API.rglob("*") if path.suffix in (".cpp", ".h")}
TEXT = "\n".join(SOURCES.values())


def names(how: str) -> set[str]:
    return {row.name for row in ROWS if row.how == how}


def test_every_function_that_is_linked_has_a_row():
    looked_up = set(re.findall(r'"(acl\w+)"', TEXT))
    called = set(re.findall(r"\b(acl(?!nn)[A-Za-z]\w*)\(", TEXT)) - looked_up
    assert called == names(LINKED)


def test_every_function_that_is_looked_up_has_a_row():
    table = set(re.findall(r"ROW\((\w+), \"lib", SOURCES[OP_API / "cann/symbols.h"]))
    by_name = {name for name in re.findall(r'"(acl\w+)"', TEXT) if not name.startswith("aclnn")}
    by_name |= set(re.findall(r'Resolve\("(\w+)"', TEXT))
    assert len(table) > 10
    assert table | by_name | set(MANGLED) == names(LOOKED_UP)


def test_every_row_names_a_source():
    repositories = ("hcomm ", "hccl ", "runtime ", "opbase ", "the same, ")
    for row in ROWS:
        assert row.source.startswith(repositories), row.name
        assert re.search(r":\d+", row.source), row.name
        assert (row.how == FIELD) == bool(row.offset), row.name


def test_the_offsets_are_those_that_the_library_reads():
    """Its constants, compared with the rows by hand-written names: neither file knows the other."""
    source = SOURCES[OP_API / "windows/tiling.cpp"]
    constant = dict(re.findall(r"constexpr uint64_t (\w+) = (\d+);", source))
    offset = {row.name.partition(".")[2]: row.offset for row in ROWS if row.how == FIELD}
    assert offset["remoteResNum"] == constant["kRemoteCount"]
    assert offset["localWindowsIn"] == constant["kOwnWindow"]
    assert offset["remoteRes[r].nextDevicePtr"] == f"{constant['kRemotes']} + 16 r + 8"
    assert offset["multiServerFlag"] == constant["kMeshSpansServers"]
    between = dict(
        re.findall(
            r"constexpr uint64_t (\w+) = (\d+);", SOURCES[OP_API / "windows/rdma_tables.cpp"]
        )
    )
    assert offset["rankId"] == between["kHeadOffset"]
    assert offset["multiServerFlag"] == between["kEndOffset"]
    assert offset["windowsIn[r]"] == f"{constant['kMeshWindows']} + 8 r"


@pytest.mark.usefixtures("run")
def test_every_function_is_in_the_stand_in():
    libraries = sorted((virtual_npu().home / "lib64").glob("*.so"))
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", *libraries], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in listing.splitlines() if line and line[0] == "0"}
    for row in ROWS:
        if row.how != FIELD:
            assert MANGLED.get(row.name, row.name) in exported, row.name


def expected(row: Row, cann: str, product: str, servers: int, windows: list[int]) -> object:
    text = row.measured if isinstance(row.measured, str) else row.measured[cann]
    known = {"rank": 0, "peer": 1, "size": 2, "W": W, "MB": MB, "cann": cann, "product": product}
    known["servers"] = servers
    return eval(text, {"window": lambda rank: windows[rank], **known})


@pytest.mark.parametrize(
    ("cann", "product", "servers"),
    [*((version, "A3", 1) for version in CANN_VERSIONS), ("9.0.0", "A2", 1), ("9.0.0", "A2", 2)],
)
def test_the_stand_in_answers_what_the_rows_say(run, cann, product, servers):
    environment = {"HCCL_BUFFSIZE": "4", "ASCEND_MOE_VNPU_CANN": cann}
    if servers > 1:
        environment |= {"ASCEND_MOE_VNPU_DEVICES": "2", "ASCEND_MOE_VNPU_SERVERS": str(servers)}
    done = run("cann_interface.py", product=product, environment=environment, fresh=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    found = answer["rows"]
    products = ("", product, BETWEEN) if servers > 1 else ("", product)
    here = [row for row in ROWS if row.measured and row.product in products]
    if cann == "8.5.0":
        here = [row for row in here if not row.name.startswith(NEW_IN_9)]
    assert found == {
        row.name: expected(row, cann, product, servers, answer["windows"]) for row in here
    }
