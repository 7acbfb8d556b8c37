"""Faults that the kernels had, put back into a copy of the sources: the checker finds each in every case that meets it.

All were found by reading the vendor's headers, while hostsim was kinder than they are (docs/hostsim.md).
"""

import re
import subprocess
from pathlib import Path

import pytest

from kernels.proof import simulator
from kernels.proof.golden_programs import GoldenProgram, golden_cases
from kernels.proof.simulator import Schedule
from kernels.proof.variants import build_variant

ROOT = Path(__file__).parents[2]
FAULTS = {
    "reduce.h": ("TQue<TPosition::VECIN, kAhead> rows_;", "TQue<TPosition::VECIN, 1> rows_;"),
    "int8.h": ("AlignUp(2 * CeilDiv(hidden, 64)", "AlignUp(CeilDiv(hidden, 64)"),
}


@pytest.fixture(scope="module")
def faulty_library(proof_library, compiler, tmp_path_factory):
    """The device kernels with both faults, over the objects of hostsim that are built already."""
    library = build_variant(tmp_path_factory.mktemp("faulty"), FAULTS, compiler)
    return simulator.load(library)


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("cores", [1, 3])
def test_the_faults_are_found_in_every_golden_case(case, cores, faulty_library, monkeypatch):
    monkeypatch.setattr(simulator, "library", lambda: faulty_library)
    problems = GoldenProgram(case).problems(Schedule(seed=cores), cores=cores)
    deep = [text for text in problems if "EnQue beyond the depth of the queue" in text]
    assert deep
    assert all(re.search(r"ascend_moe_combine at kernels/device/reduce\.h:\d+", s) for s in deep)
    work = [text for text in problems if re.search(r"ub-bounds.* at kernels/device/int8\.h", text)]
    quantises = any(case.dispatch_call(rank).get("quant_mode") for rank in range(case.ranks))
    assert bool(work) == quantises
    # A row that is dropped is missing in the sum.
    if cores == 1:
        assert any(re.search(r"step \d+ \(combine\)", text) for text in problems)


NAMES = ("half", "block_idx", "block_num", "l2_vaddr_base", "l2_in_main", "number")


@pytest.mark.parametrize("name", NAMES)
def test_words_of_the_device_compiler_are_not_names(name, compiler, tmp_path):
    source = tmp_path / "names.cpp"
    source.write_text(
        '#include "kernel_operator.h"\nuint32_t Twice(uint32_t x) {\n'
        f"    uint32_t {name} = x;\n    return 2 * {name};\n}}\n"
    )
    result = subprocess.run(
        [compiler, "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'kernels/hostsim'}", str(source)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode == 0) == (name == "number"), result.stderr
