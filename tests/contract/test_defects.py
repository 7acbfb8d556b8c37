"""S-xx: sizes at which CANN's own kernels lose tokens, where and only where those will run."""

import json

import pytest
import torch

from ascend_moe import gate
from ascend_moe.cli import main
from ascend_moe.contract.call import DEFAULTS
from ascend_moe.contract.check import violations
from ascend_moe.contract.defects import DEFECTS
from ascend_moe.contract.errors import ConstraintWarning
from ascend_moe.contract.examples import Setting, example_call


def found(op, product, contract, changes, **options):
    judged = "cann-9.1" if contract == "cann-8.3" else contract
    example = example_call(Setting(op, product, judged, "hierarchy"), changes)
    env = {"HCCL_BUFFSIZE": "30000"} | options.pop("env", {})
    options = {"defects": True, "env": example.env | env} | options
    reported = violations(op, example.args, product=product, contract=contract, **options)
    return [violation.rule for violation in reported if violation.rule[0] == "S"]


FOUR = {"ep_world_size": 32, "moe_expert_num": 64}
TWO_A3 = {"ep_world_size": 32, "moe_expert_num": 64}


@pytest.mark.parametrize(
    ("contract", "hidden", "topk", "batch"),
    [  # the sizes that the vendor's kernels were executed with
        ("cann-9.1", 1024, 9, 31),
        ("cann-9.1", 2048, 16, 63),
        ("cann-9.1", 4096, 12, 127),
        ("cann-9.1", 5120, 9, 159),
        ("cann-9.1", 7168, 16, 223),
        ("cann-8.3", 7168, 10, 191),
        ("cann-8.3", 5120, 16, 127),
        ("cann-8.3", 1024, 8, 31),
        ("cann-8.3", 1024, 8, 63),
        ("cann-8.3", 1024, 8, 95),
    ],
)
def test_s01_one_batch_of_a_hidden_size(contract, hidden, topk, batch):
    sizes = FOUR | {"H": hidden, "K": topk, "BS": batch}
    assert found("dispatch", "A2", contract, sizes) == ["S-01"]
    for change in ({"BS": batch - 1}, {"BS": batch + 1}, {"quant_mode": 2}, {"ep_world_size": 16}):
        assert found("dispatch", "A2", contract, sizes | change) == []


def test_s01_depends_on_the_alignment_of_the_release():
    assert found("dispatch", "A2", "cann-8.3", FOUR | {"H": 7168, "K": 16, "BS": 223}) == []
    assert found("dispatch", "A2", "cann-9.1", FOUR | {"H": 7168, "K": 16, "BS": 191}) == []


@pytest.mark.parametrize(
    ("product", "contract", "sizes", "least", "name"),
    [
        ("A3", "cann-9.1", TWO_A3, 250, "S-02"),
        ("A3", "cann-8.3", TWO_A3, 250, "S-02"),
        ("A2", "cann-8.3", {}, 241, "S-03"),
    ],
)
def test_s02_and_s03_two_servers(product, contract, sizes, least, name):
    assert found("combine", product, contract, sizes | {"BS": least}) == [name]
    assert found("combine", product, contract, sizes | {"BS": least - 1}) == []
    assert found("dispatch", product, contract, sizes | {"BS": least}) == []
    ranks = {"ep_world_size": 64, "moe_expert_num": 64}
    assert found("combine", product, contract, ranks | {"BS": least}) == []


def test_s04_a_window_without_room():
    # 48 experts, BS 2, H 5376, K 1: tiling wants 48 * 2 * (2 * 5376 + 24 * 4 + 64) + 404 MB = 424 671 232, so 405 MB.
    # A slice of (405 - 404) MB / 48 is 21 504 bytes, two records of 2 * 5376 + 2 * 4 * 8 + 64 are 21 760.
    sizes = {"BS": 2, "H": 5376, "K": 1, "moe_expert_num": 48}
    assert found("dispatch", "A3", "cann-9.1", sizes, window_mb=405) == ["S-04"]
    assert found("dispatch", "A3", "cann-9.1", sizes, window_mb=406) == []
    assert found("dispatch", "A3", "cann-9.1", sizes, window_mb=404) == [], "X-39 says it"
    assert found("dispatch", "A3", "cann-9.1", sizes | {"quant_mode": 2}, window_mb=405) == []
    assert found("dispatch", "A3", "cann-9.1", sizes | {"BS": 1}, window_mb=405) == []


def test_never_without_being_asked_nor_for_our_kernels():
    sizes = TWO_A3 | {"BS": 256}
    assert found("combine", "A3", "cann-9.1", sizes, defects=False) == []
    assert found("combine", "A3", "cann-9.1", sizes, implementation="ascend_moe") == []


@pytest.mark.parametrize("where", ["an NPU", "CPU tensors", "the virtual NPU"])
def test_calls_are_warned_only_where_stock_kernels_run(where, monkeypatch, recwarn):
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A3")
    monkeypatch.setenv("ASCEND_MOE_CONTRACT", "cann-9.1")
    monkeypatch.setenv("HCCL_BUFFSIZE", "30000")
    if where == "the virtual NPU":
        monkeypatch.setenv("ASCEND_MOE_VNPU", "/somewhere")
    example = example_call(Setting("combine", "A3", "cann-9.1", "hierarchy"), TWO_A3 | {"BS": 250})
    device = "cpu" if where == "CPU tensors" else "meta"
    args = {
        name: torch.zeros(value.shape, dtype=getattr(torch, value.dtype), device=device)
        if hasattr(value, "shape")
        else value
        for name, value in example.args.items()
    }
    monkeypatch.setenv("ASCEND_MOE_CHECK", "fast")
    gate.forget()
    gate.require_legal("combine", {**DEFAULTS["combine"], **args})
    gate.forget()
    said = [str(each.message) for each in recwarn if each.category is ConstraintWarning]
    assert any(text.startswith("S-02 warning") for text in said) is (where == "an NPU")


def test_buffsize_and_check_and_explain_say_it(tmp_path, capsys):
    words = "buffsize --product A3 --contract cann-9.1 --algorithm hierarchy --ep 32 --experts 64 --topk 8"
    words += " --hidden 2048"
    assert main([*words.split(), "--max-bs", "250", "--have", "20000", "--json"]) == 0
    assert [each["rule"] for each in json.loads(capsys.readouterr().out)["violations"]] == ["S-02"]
    assert (
        main([*words.split(), "--max-bs", "250", "--have", "20000", "--op", "dispatch", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["violations"] == []
    call = {
        "op": "dispatch",
        "product": "A2",
        "contract": "cann-9.1",
        "env": {"HCCL_BUFFSIZE": "2000"},
        "x": {"shape": [223, 7168], "dtype": "bfloat16"},
        "expert_ids": {"shape": [223, 12], "dtype": "int32"},
        "expert_scales": {"shape": [223, 12], "dtype": "float32"},
        "group_ep": "ep",
        "ep_world_size": 32,
        "ep_rank_id": 0,
        "moe_expert_num": 64,
        "comm_alg": "hierarchy",
    }
    file = tmp_path / "call.json"
    file.write_text(json.dumps(call))
    assert main(["check", str(file)]) == 0
    assert "S-01 warning" in capsys.readouterr().out
    for defect in DEFECTS:
        assert main(["explain", defect.id.lower()]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert defect.title in said
        assert "not measured on a device" in said
    assert main(["explain", "S-99"]) == 2
    capsys.readouterr()
    log = tmp_path / "log"
    log.write_text("UserWarning: S-02 warning x: 256: CANN's own kernels can lose tokens")
    assert main(["explain", str(log)]) == 0
    assert "overwrite the other's first flags" in " ".join(capsys.readouterr().out.split())


def test_every_warning_says_how_it_was_found():
    example = example_call(Setting("combine", "A3", "cann-9.1", "hierarchy"), TWO_A3 | {"BS": 250})
    (warning,) = violations(
        "combine",
        example.args,
        product="A3",
        contract="cann-9.1",
        env=example.env | {"HCCL_BUFFSIZE": "30000"},
        defects=True,
    )
    assert warning.level == "warning"
    assert "by execution of the published source on a CPU" in warning.message
