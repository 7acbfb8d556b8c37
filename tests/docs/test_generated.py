"""The generated files are what the contract says, and the check for that can fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ascend_moe.contract.limits import LIMITS
from ascend_moe.contract.rules import RULES
from ascend_moe.diagnosis.symptoms import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
from generators import buffer_size  # noqa: E402

GENERATED = (
    "docs/constraints.md",
    "docs/errors.md",
    "docs/build-npu.md",
    "docs/stock-defects.md",
    "docs/buffer-size.md",
    "docs/buffer-size.svg",
    "docs/calculator.html",
    "docs/api.md",
    "docs/constraints.zh.md",
    "docs/errors.zh.md",
    "kernels/device/moe_limits.h",
    "kernels/op_api/core_table.h",
)


def check(root):
    command = [sys.executable, str(root / "scripts" / "generate"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_nothing_is_stale():
    result = check(ROOT)
    assert result.returncode == 0, f"run scripts/generate: {result.stdout}{result.stderr}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    root = tmp_path_factory.mktemp("clone")
    for name in ("ascend_moe", "scripts", "docs", "kernels/proof", "kernels/op_api/cores"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", root)
    (root / "kernels/device").mkdir()
    for name in ("__init__.py", "device/moe_limits.h", "op_api/core_table.h"):
        shutil.copy(ROOT / "kernels" / name, root / "kernels" / name)
    return root


@pytest.mark.parametrize("name", GENERATED)
def test_an_edited_file_is_stale(clone, name):
    path = clone / name
    original = path.read_text()
    path.write_text(re.sub(r"\d{3}", "977", original))
    result = check(clone)
    path.write_text(original)
    assert result.returncode == 1
    # The list of pages quotes their first sentences.
    assert {*result.stdout.splitlines()} - {"stale: docs/llms.txt"} == {f"stale: {name}"}


def test_a_changed_limit_makes_documents_and_header_stale(clone):
    path = clone / "ascend_moe/contract/limits.py"
    original = path.read_text()
    path.write_text(original.replace("batch_max=512", "batch_max=513", 1))
    result = check(clone)
    path.write_text(original)
    assert result.returncode == 1
    for name in ("docs/constraints.md", "docs/calculator.html", "kernels/device/moe_limits.h"):
        assert f"stale: {name}" in result.stdout


def test_every_rule_and_symptom_has_its_row():
    constraints = (ROOT / "docs/constraints.md").read_text()
    for rule in RULES:
        assert f"#### {rule.id} `{rule.param}`" in constraints
    errors = (ROOT / "docs/errors.md").read_text()
    for name in CATALOGUE:
        assert f"</a>**{name}**" in errors


def test_links_between_documents_lead_somewhere():
    for path in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", path.read_text()):
            if target and not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
        for anchor in re.findall(r"\]\((?:constraints\.md)#([^)]*)\)", path.read_text()):
            rule = next(rule for rule in RULES if rule.id.lower() == anchor[:4])
            assert anchor == f"{rule.id}-{rule.param}".lower()


def test_header_compiles_and_holds_the_limits(tmp_path, compiler):
    lines = ["#include <cstdint>", '#include "moe_limits.h"', "using namespace ascend_moe::limits;"]
    names = {"cann-8.2": "Cann82", "cann-9.1": "Cann91"}
    paths = {"fullmesh": "FullMesh", "fullmesh_v2": "FullMeshV2", "hierarchy": "Hierarchy"}
    for (contract, product), table in LIMITS.items():
        for path, limits in table.paths.items():
            name = f"k{names[contract]}{product}{paths[path]}"
            bound = limits.local_times_ep_max or 0
            lines += [
                f"static_assert({name}.batch_max == {limits.batch_max});",
                f"static_assert({name}.hidden_min == {limits.hidden_min});",
                f"static_assert({name}.hidden_max == {limits.hidden_max});",
                f"static_assert({name}.topk_max == {limits.topk_max});",
                f"static_assert({name}.local_times_ep_max == {bound});",
                f"static_assert({name}.tp_max == {max(table.tp_sizes)});",
                f"static_assert({name}.ranks_per_server == {limits.ranks_per_server});",
                f"static_assert({name}.shared_ranks == {str(limits.shared_ranks).lower()});",
            ]
    lines += ["static_assert(kEpMax == 768 && kBatchMax == 512 && kHiddenMax == 10240);"]
    source = tmp_path / "check.cpp"
    source.write_text("\n".join(lines) + "\n")
    subprocess.run(
        [compiler, "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'kernels/device'}", str(source)],
        check=True,
        timeout=60,
    )


def test_a_plot_is_stale_when_its_numbers_change(clone):
    """By the numbers that it carries, which another matplotlib leaves alone; and they are those it was drawn from."""
    svg = (ROOT / "docs/buffer-size.svg").read_text()
    assert len(re.findall(r">numbers [0-9a-f]{16}<", svg)) == 1
    assert all(f">{label}<" in svg for label, *_ in buffer_size.CURVES)
    path = clone / "scripts/generators/buffer_size.py"
    original = path.read_text()
    path.write_text(original.replace('"topk": 8', '"topk": 7'))
    result = check(clone)
    path.write_text(original)
    assert result.stdout == "stale: docs/buffer-size.svg\n"


def test_no_header_has_the_name_of_a_system_header(compiler):
    """A folder on the include path with a ``limits.h`` of its own takes the C library's from everybody."""
    names = {
        path.name
        for room in ("device", "op_api")
        for path in (ROOT / "kernels" / room).rglob("*.h")
    }
    assert len(names) > 20
    source = "".join(f"#if __has_include(<{name}>)\n#error {name}\n#endif\n" for name in names)
    result = subprocess.run(
        [compiler, "-xc++", "-fsyntax-only", "-"], input=source, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
