"""A kernel library is loaded in a process of its own, and whatever happens there is a sentence."""

import os
import shutil
import subprocess

import pytest

from ascend_moe.hardware import loading
from ascend_moe.hardware.loading import load_failure

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")


@pytest.fixture
def compiled(tmp_path):
    """``compiled(name, source, *options)``: a shared library."""

    def make(name: str, source: str, *options: str):
        file, library = tmp_path / f"{name}.cpp", tmp_path / f"lib{name}.so"
        file.write_text(source)
        command = ["g++", "-shared", "-fPIC", "-o", library, file, *options]
        subprocess.run(command, check=True)
        return library

    return make


def test_a_sound_library_and_one_with_a_function_that_comes_later(compiled):
    """op-plugin binds functions when they are called."""
    assert load_failure(compiled("sound", "int f() { return 1; }"), os.environ) == ""
    lazy = compiled("lazy", 'extern "C" int later(); int f() { return later(); }')
    assert load_failure(lazy, os.environ) == ""


def test_what_it_needs_is_gone(compiled):
    needed = compiled("ascendcl", "int a() { return 1; }")
    here = ["-L", str(needed.parent), "-Wl,--no-as-needed", "-lascendcl"]
    library = compiled("ours", "int f() { return 1; }", *here)
    path = {"LD_LIBRARY_PATH": str(needed.parent)}
    assert load_failure(library, os.environ | path) == ""
    needed.unlink()
    assert "libascendcl.so: cannot open shared object file" in load_failure(library, os.environ)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "*static_cast<volatile int*>(nullptr) = 1;",
            "signal 11 (Segmentation fault) ends the process",
        ),
        ("_exit(3);", "the process ends with 3 while it loads"),
        ("pause();", "it was not loaded after 1 s"),
    ],
)
def test_a_library_that_ends_or_stops_its_process(compiled, monkeypatch, body, text):
    monkeypatch.setattr(loading, "LIMIT_S", 1)
    source = f"#include <unistd.h>\n__attribute__((constructor)) void start() {{ {body} }}\n"
    assert text in load_failure(compiled("bad", source), os.environ)


def test_no_library(tmp_path):
    assert "cannot open shared object file" in load_failure(tmp_path / "none.so", os.environ)
