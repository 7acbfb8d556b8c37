"""The device compile: the kernels pass, and every rule is broken once in a copy of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kernels.device_check import clang
from kernels.device_check.__main__ import DEVICE, MISSING, check

ROOT = Path(__file__).parents[2]
OLDEST = clang.VERSIONS[:1]


@pytest.fixture(scope="session")
def device_clang() -> str:
    """Skips without one, unless REQUIRE_CLANG says that this may not be, as .ci/run does."""
    found = clang.find()
    if found is None:
        assert not os.environ.get("REQUIRE_CLANG"), MISSING
        pytest.skip(MISSING)
    return found


def test_the_kernels_pass(device_clang):
    assert list(map(str, check(DEVICE, device_clang))) == []


class Mistake(NamedTuple):
    """A statement or a declaration, the rule that it breaks, and a part of what is said."""

    text: str
    rule: str
    said: str = ""


STATEMENT = "        AscendC::Duplicate(zero, 0u,"
"""A line of OpenKernel::Clear, where `context`, `pipe`, `window` and `zero` are."""
DECLARATION = "class OpenKernel {"
"""A line of the namespace."""


def with_lines(folder: Path, before: str, texts: list[str]) -> tuple[Path, int]:
    """A copy of the kernels with more lines in open.h before that one, and the number of the first."""
    copy = folder / "device"
    shutil.copytree(DEVICE, copy)
    path = copy / "open.h"
    lines = path.read_text().splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith(before))
    path.write_text("\n".join(lines[:at] + texts + lines[at:]) + "\n")
    return copy, at + 1


def of_line(found, line: int) -> list[str]:
    return [f"{f.rule}: {f.text}" for f in found if f.file.name == "open.h" and f.line == line]


def is_seen(mistake: Mistake, said: list[str]) -> bool:
    return any(
        line.startswith(f"{mistake.rule}: ") and mistake.said in line.split(": ", 1)[1]
        for line in said
    )


def text_of(mistake: Mistake) -> str:
    return mistake.text


# ---- What the text shows, without a compiler


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake("struct A { virtual void Run(); };", "virtual"),
        Mistake("struct A : virtual Share {};", "virtual"),
        Mistake("inline void A() { static uint32_t calls = 0; }", "static"),
        Mistake("inline void A() { static uint32_t calls; }", "static"),
        Mistake("inline void A() { static const float values[] = {1.0f}; }", "static"),
        Mistake("inline void A() { static Share share{0, 1}; }", "static"),
        Mistake("inline void A() { thread_local uint32_t calls; }", "static"),
        Mistake("struct A { static uint32_t calls; };", "static"),
        Mistake("inline int A() { return std::min(1, 2); }", "std", "standard library"),
        Mistake("inline void A() { typeid(int); }", "typeid"),
        Mistake("#include <cstdint>", "include", "<cstdint>"),
        Mistake('#include "hostsim.h"', "include", '"hostsim.h"'),
    ],
    ids=text_of,
)
def test_the_text_shows(mistake, tmp_path):
    copy, line = with_lines(tmp_path, DECLARATION, [mistake.text])
    found = check(copy, None)
    assert is_seen(mistake, of_line(found, line))
    assert len(found) == 1


def test_comments_strings_and_constants_are_no_mistakes(tmp_path):
    texts = [
        "// a static uint32_t calls = 0; of a virtual std::thread",
        "/* #include is fine, static int a;",
        " virtual */",
        'constexpr const char* kText = "std::string static int a = 0;";',
        "struct A { static constexpr uint32_t kSize = 4; };",
        "struct B { static uint32_t Of(uint32_t a = 1); constexpr static uint32_t kSize = 4; };",
        'static_assert(sizeof(A) == 1, "");',
    ]
    copy, _ = with_lines(tmp_path, DECLARATION, texts)
    assert check(copy, None) == []


# ---- What the compile shows: all statements in one copy, each on a line of its own

COMPILE = [
    Mistake("(void)*reinterpret_cast<uint32_t*>(context);", "compile", "not allowed"),
    Mistake("uint8_t* a = context;", "compile", "cannot initialize"),
    Mistake("__ubuf__ uint8_t* a = context;", "compile", "cannot initialize"),
    Mistake("memset(&window, 0, sizeof(window));", "compile", "memset"),
    Mistake("AscendC::Duplicate(zero, 0u);", "compile", "no matching function"),
    Mistake("AscendC::Duplicate(zero, 0u, 64ull, 1, 1, 8);", "compile", "no matching function"),
    Mistake("AscendC::Adds(zero, zero, 1u, 8);", "compile", "Adds: the element type"),
    Mistake("AscendC::Add(zero, zero, zero, 8);", "compile", "Add: the element type"),
    Mistake("AscendC::And(zero, zero, zero, 8);", "compile", "And: the element type"),
    Mistake("AscendC::Abs(zero, zero, 8);", "compile", "Abs: the element type"),
    Mistake("AscendC::CreateVecIndex(zero, 0u, 8);", "compile", "CreateVecIndex: the element"),
    Mistake("AscendC::SetAtomicAdd<uint32_t>();", "compile", "SetAtomicAdd: the element type"),
    Mistake(
        "AscendC::Cast(zero.ReinterpretCast<float>(), zero, AscendC::RoundMode::CAST_NONE, 8);",
        "compile",
        "this Cast does not exist",
    ),
    Mistake(
        "AscendC::Cast(zero.ReinterpretCast<float>(), zero.ReinterpretCast<bfloat16_t>(),"
        " AscendC::RoundMode::CAST_RINT, 8);",
        "compile",
        "this Cast does not exist",
    ),
    Mistake("zero.ReinterpretCast<float>().SetValue(0, window.rank);", "compile", "SetValue casts"),
    Mistake("AscendC::PipeBarrier<PIPE_S>();", "compile", "not PIPE_S"),
    Mistake("MOE_SYNC(M_V);", "compile", "M_V"),
    Mistake("AscendC::TQue<TPosition::VECIN, 0> a;", "compile", "depth"),
    Mistake("throw 1;", "compile", "throw"),
    Mistake("uint32_t block_num = 1;", "compile"),
    Mistake("uint32_t block_idx = 1;", "compile"),
    Mistake("uint32_t status = 1;", "compile"),
    Mistake("uint32_t half = 1;", "compile", "type-name"),
    Mistake("bfloat16_t a{1}; (void)static_cast<float>(a);", "compile", "bfloat16_t"),
]

TREE = [
    Mistake("float a = window.rank; (void)a;", "unsigned-float"),
    Mistake("(void)static_cast<float>(window.rank);", "unsigned-float"),
    Mistake("(void)(1.0f * window.bytes);", "unsigned-float"),
    Mistake("(void)static_cast<float>(kBlockWords);", "unsigned-float"),
    Mistake("(void)static_cast<float>(window.failed);", "unsigned-float"),
    Mistake("(void)static_cast<float>(kLastDispatch);", "unsigned-float"),
    Mistake("float a = 1; (void)static_cast<uint32_t>(a);", "unsigned-float"),
    Mistake("float a = 1; zero.SetValue(a, 0u);", "unsigned-float"),
    Mistake("double a = 1; (void)a;", "double"),
    Mistake("(void)(2.5 < 3);", "double"),
    Mistake("half a = half(1.0f); a = a * a;", "half"),
    Mistake("half a = half(1.0f); (void)(1.0f / a);", "half"),
    Mistake("half a = half(1.0f); a = -a;", "half"),
    Mistake("half a = half(1.0f); a += a;", "half"),
    Mistake("half a = half(1.0f); (void)(a < a);", "half"),
    Mistake("(void)*reinterpret_cast<uint32_t*>(window.bytes);", "pointer"),
    Mistake("(void)new uint32_t;", "memory"),
    Mistake("static Share a(ShareOf(1, 0, 1)); (void)a;", "static"),
    Mistake("uint32_t a = 1;", "warning", "unused variable"),
]

DECLARATIONS = [
    Mistake("uint32_t calls = 0;", "global"),
    Mistake("const uint32_t limit = 4;", "global"),
    Mistake("inline void NobodyCallsIt() {}", "aicore"),
    Mistake(
        "__aicore__ inline uint32_t Down(uint32_t n) { return n == 0 ? 0 : Down(n - 1); }",
        "recursion",
        "Down",
    ),
    Mistake("__aicore__ inline uint32_t Odd(uint32_t n);", "recursion", "Odd"),
    Mistake(
        "__aicore__ inline uint32_t Even(uint32_t n) { return n == 0 ? 1 : Odd(n - 1); }",
        "recursion",
        "Even",
    ),
    Mistake(
        "__aicore__ inline uint32_t Odd(uint32_t n) { return n == 0 ? 0 : Even(n - 1); }",
        "recursion",
        "Odd",
    ),
]


def all_at_once(
    folder: Path, compiler: str, before: str, mistakes: list[Mistake]
) -> dict[Mistake, list[str]]:
    """What is said of each line; nothing is said of any other."""
    copy, first = with_lines(
        folder, before, [f"{{ {m.text} }}" if before == STATEMENT else m.text for m in mistakes]
    )
    found = check(copy, compiler, OLDEST)
    lines = range(first, first + len(mistakes))
    assert [f for f in found if f.file.name != "open.h" or f.line not in lines] == []
    return {mistake: of_line(found, line) for mistake, line in zip(mistakes, lines, strict=True)}


@pytest.fixture(scope="session")
def said(device_clang, tmp_path_factory) -> dict[Mistake, list[str]]:
    """Those that compile apart from those that do not: an error ends what clang looks at later."""
    return {
        mistake: lines
        for before, mistakes in (
            (STATEMENT, COMPILE),
            (STATEMENT, TREE),
            (DECLARATION, DECLARATIONS),
        )
        for mistake, lines in all_at_once(
            tmp_path_factory.mktemp("mistakes"), device_clang, before, mistakes
        ).items()
    }


@pytest.mark.parametrize("mistake", COMPILE + TREE + DECLARATIONS, ids=text_of)
def test_the_compile_shows(mistake, said):
    assert is_seen(mistake, said[mistake]), said[mistake]


# ---- Changes of what is there


class Change(NamedTuple):
    """A change of one source, the rule that it breaks, and a part of what is said."""

    name: str
    file: str
    pattern: str
    replacement: str
    rule: str
    said: str = ""


ANSWER = ("meet.h", r"__aicore__ (?=inline uint32_t Answer)", "")
EMPTY_ABI = ("shim.h", r"(?<=#define MOE_ABI) __aicore__", "")
CEIL_DIV = ("abi.h", r"MOE_ABI (?=constexpr uint32_t CeilDiv)", "")
RENAMED = ("shim.h", r"MOE_DEVKIT_FROM\(9, 1\)(?=\n +AscendC::ReduceDataBlock)")
BATCH_MODE = ("shim.h", r"MOE_DEVKIT_FROM\(9, 1\)(?=\n#define MOE_KERNEL)")


def changed(change: Change, folder: Path) -> Path:
    copy = folder / "device"
    shutil.copytree(DEVICE, copy)
    path = copy / change.file
    text, places = re.subn(change.pattern, change.replacement, path.read_text())
    assert places == 1
    path.write_text(text)
    return copy


@pytest.mark.parametrize(
    "change",
    [
        Change("a function of the host", *ANSWER, "aicore"),
        Change("a call of the host", *ANSWER, "compile", "reference to __host__ function 'Answer'"),
        Change("MOE_ABI is empty", *EMPTY_ABI, "aicore"),
        Change("MOE_ABI is empty, a call", *EMPTY_ABI, "compile", "call to __host__ function"),
        Change("a constexpr of the host", *CEIL_DIV, "compile", "call to __host__ function"),
        Change("no __gm__", "shim.h", r"__gm__ (?=T\*>\(address)", "", "compile", "'__gm__ float"),
    ],
    ids=lambda change: change.name,
)
def test_a_change_is_seen(change, tmp_path, device_clang):
    found = check(changed(change, tmp_path), device_clang, OLDEST)
    assert any(f.rule == change.rule and change.said in f.text for f in found), found


@pytest.mark.parametrize(
    "change",
    [
        Change("the old name in 9.1", *RENAMED, "0", "compile", "(AscendC 9.1)"),
        Change("the new name in 8.5", *RENAMED, "1", "compile", "(AscendC 8.5)"),
        Change("batch mode in 8.5", *BATCH_MODE, "1", "compile", "(AscendC 8.5)"),
    ],
    ids=lambda change: change.name,
)
def test_each_version_has_its_api(change, tmp_path, device_clang):
    found = check(changed(change, tmp_path), device_clang)
    assert all(f.text.endswith(change.said) for f in found), found
    assert any(f.rule == change.rule for f in found), found


CASTS = r"(?<!inline float )FloatOf\("
"""Once each of them was a static_cast of an unsigned number, as the first kernels had it."""


def test_the_four_casts_are_seen(tmp_path, device_clang):
    copy = tmp_path / "device"
    shutil.copytree(DEVICE, copy)
    path = copy / "publish.h"
    text, places = re.subn(CASTS, "static_cast<float>(", path.read_text())
    assert places == 4
    path.write_text(text)
    found = check(copy, device_clang, OLDEST)
    assert [f.rule for f in found] == ["unsigned-float"] * 4
    lines = text.splitlines()
    assert all("static_cast<float>(" in lines[f.line - 1] for f in found)


# ---- The command, with and without clang


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As scripts/lint does it."""
    return subprocess.run(
        [sys.executable, "-m", "kernels.device_check", *arguments],
        cwd=ROOT,
        env=os.environ | {"REQUIRE_CLANG": ""} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def only_clang(folder: Path, script: str) -> str:
    """A PATH with one program, that script."""
    path = folder / "clang++-16"
    path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    path.chmod(0o755)
    return str(folder)


def test_a_finding_is_a_line_and_exit_status_1(tmp_path, device_clang):
    copy, line = with_lines(tmp_path, DECLARATION, ["uint32_t calls = 0;"])
    done = run(str(copy))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        f"{copy}/open.h:{line}: global: a global variable that is not constexpr"
    )


def test_without_clang_the_compile_is_skipped_and_says_so(tmp_path):
    done = run(PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"device check: the device compile is skipped: {MISSING}\n"
    assert "apt-get install clang-16" in MISSING


def test_without_clang_the_text_is_still_read(tmp_path):
    copy, line = with_lines(tmp_path, DECLARATION, ["#include <vector>"])
    done = run(str(copy), PATH=str(tmp_path))
    assert done.returncode == 1
    assert f"open.h:{line}: include: <vector> is not a file of device code" in done.stdout


def test_where_it_is_required_it_is_not_skipped(tmp_path):
    done = run(PATH=str(tmp_path), REQUIRE_CLANG="1")
    assert done.returncode == 1
    assert done.stderr == f"device check: the device compile cannot be made: {MISSING}\n"


def test_a_clang_that_cannot_do_it_is_none(tmp_path):
    done = run("--compiler", PATH=only_clang(tmp_path, "exit 1"))
    assert (done.returncode, done.stdout) == (1, f"{MISSING}\n")


def test_a_clang_that_breaks_is_no_pass(tmp_path):
    """It takes the probe, which comes from its standard input, and nothing else."""
    script = 'case "$*" in *" -") exit 0;; esac; echo out of memory >&2; exit 139'
    done = run(PATH=only_clang(tmp_path, script))
    assert done.returncode == 1
    assert "ended with 139: out of memory" in done.stderr
