"""What a device keeps beside tensors, what a refused call leaves of it, and the tool that scripts ask for one."""

import json
import re
import subprocess
import sys

import pytest
from vnpu_launch import REPOSITORY, clean_environment, require_virtual_npu

from ascend_moe.vnpu.build import virtual_npu
from ascend_moe.vnpu.environment import variables


def test_state_of_a_device(run):
    """Its default, its generator and registered host memory; and calls that are refused."""
    done = run("device_state.py")
    parts = re.findall(r"^(\w+): right$", done.stdout, re.MULTILINE)
    assert parts == [
        "streams_before_the_first_use",
        "seeds_decide",
        "graphs_draw_anew",
        "refused_calls_harm_nothing",
        "host_memory_is_registered",
    ]


def test_expandable_segments(run):
    allocator = {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}
    done = run("expandable.py", environment=allocator, fresh=True)
    parts = re.findall(r"^(\w+): right$", done.stdout, re.MULTILINE)
    assert parts == ["tensors", "gaps", "the_host_may_not_touch_it"]


@pytest.fixture(scope="module", params=[("A3", 16), ("A2", 8), ("A3", 3)], ids=str)
def machine(request):
    """Product, devices, and the environment of a process there."""
    require_virtual_npu()
    product, devices = request.param
    clean = clean_environment()
    changes = variables(virtual_npu(), clean, product=product, devices=devices)
    return product, devices, clean | changes


def ask(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/env", "npu-smi", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_npu_smi(machine):
    """In the forms that public scripts parse; each answer says what it comes from."""
    product, devices, environment = machine
    chips = {"A3": 2, "A2": 1}[product]
    cards = -(-devices // chips)
    name = {"A3": "Ascend910", "A2": "910B3"}[product]
    told = {
        words: ask(environment, *words.split())
        for words in ("info", "info -l", "info -m", "info -t topo", "info -t board -i 0")
    }
    for words, done in told.items():
        assert done.returncode == 0, words
        assert "virtual NPU" in done.stdout, words
    assert len({len(line) for line in told["info"].stdout.splitlines()}) == 1
    assert told["info"].stdout.count(f" {name} ") == devices
    # DeepSpeed, tests/unit/common.py: the number is in the first line.
    listed = told["info -l"].stdout
    assert int(listed.strip().split("\n")[0].split(":")[1]) == cards
    assert re.findall(r"NPU ID\s*:\s*(\d+)", listed) == [str(card) for card in range(cards)]
    assert sum(map(int, re.findall(r"Chip Count\s*:\s*(\d+)", listed))) == devices
    # vllm-ascend, vllm_ascend/cpu_binding.py: card, chip and device of each line behind the first.
    rows = [line.split() for line in told["info -m"].stdout.strip().split("\n")[1:]]
    assert [row[:3] for row in rows] == [
        [str(device // chips), str(device % chips), str(device)] for device in range(devices)
    ]
    topology = [line for line in told["info -t topo"].stdout.splitlines() if line.startswith("NPU")]
    assert len(topology) == devices
    assert all(re.fullmatch(r"0-\d+", line.split()[-1]) for line in topology)
    assert f"Chip Name                      : {name}" in told["info -t board -i 0"].stdout


@pytest.mark.parametrize(
    "words", ["", "info -t usages -i 0", "info -t board -i 99", "set -t reset"]
)
def test_npu_smi_makes_nothing_up(machine, words):
    done = ask(machine[2], *words.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert "virtual NPU" in done.stderr
    assert "is not answered here" in done.stderr


@pytest.mark.parametrize("machine", [("A2", 8)], indirect=True, ids=str)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "only-on-PATH"])
def test_doctor_takes_it_for_no_hardware(machine, inside):
    """A2 is what npu-smi names; the product is the user's choice or the default, never found here."""
    environment = machine[2] if inside else clean_environment() | {"PATH": machine[2]["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "ascend_moe", "doctor", "--json"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    facts = json.loads(done.stdout)
    assert facts["virtual_npu"] is inside
    assert (facts["cann"], facts["driver"]) == (None, None)
    wanted = "ASCEND_MOE_PRODUCT" if inside else "default, no NPU here"
    assert facts["product_from"] == wanted
