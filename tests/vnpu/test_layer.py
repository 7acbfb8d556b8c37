"""The MoE layer around the two operators: its other operators on the virtual NPU, and a whole layer."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "kernels" / "standin"
STOCK = {"ASCEND_MOE_KERNELS": "off"}


def test_operators(run):
    """Each operator against plain torch; what is refused names itself and the device goes on."""
    done = run("layer_operators.py")
    assert "103 results of the operators of an MoE layer equal plain torch" in done.stdout


@pytest.mark.parametrize("options", [(), ("--install",)], ids=["stock", "install"])
def test_layer(run, options):
    done = run(REPOSITORY / "examples" / "layer.py", *options)
    assert done.stdout.count("the layer equals plain torch") == 8


@pytest.mark.parametrize("product", ["A2", "A3"])
def test_first_generation(run, product):
    """V1 of dispatch and combine, and the barrier."""
    done = run("first_generation.py", product, product=product, environment=STOCK)
    assert f"the first generation equals the second on {product}" in done.stdout


def test_table_of_operators():
    """docs/virtual-npu.md names the aclnn functions that the sources define, file by file."""
    rows = re.compile(r"^ACLNN\((aclnn\w+),", re.MULTILINE)
    defined = {
        source.stem: set(rows.findall(source.read_text()))
        for source in (SOURCES / "aten" / "operators").glob("*.cpp")
    }
    page = (REPOSITORY / "docs" / "virtual-npu.md").read_text()
    documented = {
        file: {f"aclnn{name}" for name in re.findall(r"\w+", functions)}
        for file, functions in re.findall(
            r"^\| `(\w+)\.cpp` \|.*\| ([\w, ]+) \|$", page, re.MULTILINE
        )
    }
    assert documented == {file: functions for file, functions in defined.items() if functions}
