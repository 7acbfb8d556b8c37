"""CANN's own operators as our library finds and calls them: stock.cpp over libraries made here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hardware import fake_cann

HERE = Path(__file__).parent
OP_API = HERE.parents[1] / "kernels" / "op_api"
BAD_PARAMETER = 161002

pytestmark = [
    pytest.mark.skipif(not shutil.which("g++"), reason="needs g++"),
    pytest.mark.skipif(
        fake_cann.acl_headers() is None, reason="needs the headers in the torch_npu wheel"
    ),
]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """The caller, a CANN that ends at V2, and a custom package that carries our mark."""
    folder = tmp_path_factory.mktemp("stock")
    ours = folder / "vendors/ascend_moe/op_api/lib/libcust_opapi.so"
    ours.parent.mkdir(parents=True)
    mark = '#pragma GCC visibility push(default)\nextern "C" int ascend_moe_library_version() { return 0; }'
    (folder / "ours.cpp").write_text(f'{mark}\n#include "{HERE / "old_cann.cpp"}"\n')
    include = fake_cann.acl_headers().parent
    compile_shared = ["g++", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden"]
    for sources, target in (
        ([HERE / "old_cann.cpp"], folder / "libopapi.so"),
        ([folder / "ours.cpp"], ours),
        ([HERE / "forwarding.cpp", OP_API / "stock.cpp"], folder / "libforwarding.so"),
    ):
        options = [f"-I{OP_API}", f"-isystem{include}", "-o", target]
        subprocess.run([*compile_shared, *sources, *options, "-ldl"], check=True)
    return folder


def ask(libraries, call, tmp_path, **environment):
    """Evaluates an expression on the caller in a process of its own; its value, text and notes."""
    program = (
        "import ctypes, sys; c = ctypes.CDLL(sys.argv[1]);"
        "c.last_text.restype = c.library.restype = ctypes.c_char_p;"
        f"print({call}); print(c.last_text().decode())"
    )
    notes = tmp_path / "notes"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", program, libraries / "libforwarding.so"],
        env=kept
        | {"OLD_CANN_NOTES": str(notes), "LD_LIBRARY_PATH": str(libraries)}
        | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    value, text = done.stdout.split("\n")[:2]
    return value, text, notes.read_text().splitlines() if notes.exists() else []


def test_a_call_goes_down_to_v2(libraries, tmp_path):
    value, _, notes = ask(libraries, "c.dispatch(0, 0), c.combine(0)", tmp_path)
    assert value == "0 0"
    assert notes == [
        "dispatch one the group 32 2 0x77",
        "dispatch two - 16 0 0x1234",
        "combine one another 8 2 0x99",
    ]


@pytest.mark.parametrize(
    ("call", "argument", "generation"),
    [
        ("c.dispatch(2, 0)", "zero_expert_num", 3),
        ("c.dispatch(0, 1)", "performance_info", 4),
        ("c.combine(1)", "ori_x", 3),
    ],
)
def test_what_v2_cannot_say_is_refused(libraries, tmp_path, call, argument, generation):
    value, text, notes = ask(libraries, call, tmp_path)
    assert value == str(BAD_PARAMETER)
    assert f"{argument} needs generation V{generation} of CANN's operator" in text
    assert "libopapi.so has V2 at most" in text
    assert notes == []


def test_ourselves_are_passed_over(libraries, tmp_path):
    """Ours comes first on the path and exports the same names."""
    vendor = libraries / "vendors/ascend_moe"
    value, _, _ = ask(libraries, "c.library().decode()", tmp_path, ASCEND_CUSTOM_OPP_PATH=vendor)
    assert value == "libopapi.so"


def test_another_custom_package_comes_first(libraries, tmp_path):
    vendor = tmp_path / "vendors/somebody"
    library = vendor / "op_api/lib/libcust_opapi.so"
    library.parent.mkdir(parents=True)
    shutil.copy(libraries / "libopapi.so", library)
    value, _, _ = ask(libraries, "c.library().decode()", tmp_path, ASCEND_CUSTOM_OPP_PATH=vendor)
    assert value == str(library)


def test_no_library_has_the_operator(libraries, tmp_path):
    value, text, _ = ask(libraries, "c.dispatch(0, 0)", tmp_path, LD_LIBRARY_PATH=tmp_path)
    assert value == str(BAD_PARAMETER)
    assert "no library that torch_npu searches has aclnnMoeDistributeDispatchV2 to V4" in text
