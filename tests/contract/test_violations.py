"""How violations are reported: header, hint, levels, types, resolution."""

import pickle
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ascend_moe
from ascend_moe import ConstraintError, Violation, check_combine, check_dispatch
from ascend_moe.contract.call import DescribedTensor
from ascend_moe.contract.check import constraint_error, violations
from ascend_moe.contract.examples import Setting, example_call
from ascend_moe.contract.resolve import (
    contract_of_cann,
    knows_call,
    resolve_contract,
    resolve_product,
)


def call(op="dispatch", product="A3", contract="cann-8.2", path="fullmesh", **changes):
    return example_call(Setting(op, product, contract, path), changes).args


def test_all_violations_at_once_in_rule_order():
    broken = call(quant_mode=3, K=17, ep_rank_id=99, expert_shard_type=1, x=("BS", "H", "float32"))
    found = check_dispatch(product="A3", contract="cann-8.2", **broken)
    assert [v.rule for v in found] == ["X-07", "X-16", "X-26", "D-02", "D-12"]
    assert all(isinstance(v, Violation) and v.level == "error" for v in found)


def test_public_checks_resolve_product_and_contract(monkeypatch):
    tp = call(tp_world_size=2, group_tp="tp", moe_expert_num=16)
    assert check_dispatch(**tp) == []
    monkeypatch.setenv("ASCEND_MOE_CONTRACT", "cann-9.1")
    assert [v.rule for v in check_dispatch(**tp)] == ["X-13"]
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A2")
    monkeypatch.setenv("ASCEND_MOE_CONTRACT", "auto")
    assert [v.rule for v in check_dispatch(**tp)] == ["X-13"]
    assert check_combine(product="A3", **call("combine")) == []


def test_meta_tensors_and_descriptions_are_judged_alike():
    described = call(x=("BS", 512, "bfloat16"))
    as_meta = {
        name: torch.empty(value.shape, dtype=getattr(torch, value.dtype), device="meta")
        if isinstance(value, DescribedTensor)
        else value
        for name, value in described.items()
    }
    assert check_dispatch(**described) == check_dispatch(**as_meta) != []


def error(op, args, product="A3", contract="cann-8.2"):
    resolved = resolve_product(product), resolve_contract(op, args, contract)
    found = violations(op, args, product=product, contract=contract)
    return constraint_error(op, args, found, *resolved)


def test_first_line_names_operator_product_contract_and_why():
    text = str(error("dispatch", call(K=17)))
    first, second = text.splitlines()[:2]
    assert first.startswith("npu_moe_distribute_dispatch_v2: 1 error under contract cann-8.2")
    assert "(given)" in first
    assert "on product A3" in first
    assert second == "X-26 error expert_ids: K is 17, allowed: 1..16"


def test_hint_when_another_contract_would_accept():
    caught = error("dispatch", call(product="A2", ep_world_size=128, moe_expert_num=128), "A2")
    assert [v.rule for v in caught.violations] == ["X-05"]
    assert str(caught).splitlines()[-1] == (
        "contract cann-9.1 would accept this call: export ASCEND_MOE_CONTRACT=cann-9.1"
    )
    assert error("dispatch", call(K=17)).hint == ""


def test_error_is_both_and_survives_pickling():
    caught = error("dispatch", call(K=17))
    assert isinstance(caught, ValueError)
    assert isinstance(caught, RuntimeError)
    again = pickle.loads(pickle.dumps(caught))
    assert str(again) == str(caught)
    assert again.violations == caught.violations


def test_text_is_ascii_whatever_the_caller_passes():
    text = str(error("dispatch", call(comm_alg="\u8def\nX-01 error")))
    assert text.isascii()
    assert len(text.splitlines()) == 2


def test_between_the_contracts():
    def found(**changes):
        args = call(**changes)
        found = violations("dispatch", args, product="A3", contract="cann-8.3", env=AMPLE)
        return [(v.rule, v.level) for v in found]

    assert found(K=17) == [("X-26", "error")]
    assert found(tp_world_size=2, group_tp="tp", moe_expert_num=16) == [("X-13", "warning")]
    shared = {"shared_expert_rank_num": 32, "moe_expert_num": 1024}
    assert found(ep_world_size=64, **shared) == [("X-11", "warning")]


AMPLE = {"HCCL_BUFFSIZE": "20000"}


@pytest.mark.parametrize(
    ("version", "contract"),
    [
        ((7, 0), "cann-8.2"),
        ((8, 2), "cann-8.2"),
        ((8, 3), "cann-8.3"),
        ((9, 0), "cann-8.3"),
        ((9, 1), "cann-9.1"),
        ((10, 0), "cann-9.1"),
    ],
)
def test_contract_of_cann(version, contract):
    assert contract_of_cann(version) == contract


@pytest.mark.parametrize(
    ("args", "known"),
    [
        ({}, True),
        ({"comm_alg": ""}, True),
        ({"comm_alg": "0"}, True),
        ({"comm_alg": "fullmesh"}, False),
        ({"zero_expert_num": 0, "elastic_info": None}, True),
        ({"copy_expert_num": 1}, False),
        ({"performance_info": DescribedTensor((16,), "int64")}, False),
        ({"tp_world_size": 2}, True),
    ],
)
def test_oldest_contract_that_knows_the_call(args, known):
    assert knows_call("dispatch", args) is known


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ep_world_size": "16"}, "ep_world_size must be an int, not str"),
        ({"ep_world_size": None}, "ep_world_size must be an int, not NoneType"),
        ({"quant_mode": 2.0}, "quant_mode must be an int, not float"),
        ({"group_ep": 7}, "group_ep must be a str, not int"),
        ({"x": [1]}, "x must be a tensor, not list"),
        ({"x": None}, "x must be a tensor, not NoneType"),
        ({"scales": "none"}, "scales must be a tensor, not str"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_wrong_types_are_type_errors_that_name_the_keyword(changes, words):
    args = {**call(), **changes}
    with pytest.raises(TypeError, match=words):
        check_dispatch(**args)


def test_missing_keywords_are_named():
    args = call()
    del args["x"], args["moe_expert_num"]
    with pytest.raises(TypeError, match="moe_expert_num, x"):
        check_dispatch(**args)


@pytest.mark.parametrize("variable", ["ASCEND_MOE_PRODUCT", "ASCEND_MOE_CONTRACT"])
def test_unknown_variable_values(monkeypatch, variable):
    monkeypatch.setenv(variable, "A9")
    with pytest.raises(ValueError, match=f"{variable} is 'A9', allowed: "):
        check_dispatch(**call())


INTEGERS = st.one_of(
    st.integers(-3, 20), st.sampled_from([16, 64, 256, 768, 1024, 2**31 - 1, 2**31, -(2**63)])
)
ATTRIBUTES = [
    "ep_world_size",
    "ep_rank_id",
    "moe_expert_num",
    "tp_world_size",
    "tp_rank_id",
    "expert_shard_type",
    "shared_expert_num",
    "shared_expert_rank_num",
    "global_bs",
    "zero_expert_num",
    "copy_expert_num",
    "const_expert_num",
]
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)
TENSORS = st.builds(
    DescribedTensor, SHAPES, st.sampled_from(["bfloat16", "int32", "float32", "bool"])
)


@settings(max_examples=300, deadline=None)
@given(
    op=st.sampled_from(["dispatch", "combine"]),
    product=st.sampled_from(["A2", "A3"]),
    contract=st.sampled_from(["cann-8.2", "cann-8.3", "cann-9.1"]),
    safety=st.booleans(),
    attributes=st.dictionaries(st.sampled_from(ATTRIBUTES), INTEGERS),
    tensors=st.dictionaries(
        st.sampled_from(["x", "expand_x", "expert_ids", "x_active_mask", "expert_scales"]), TENSORS
    ),
    comm_alg=st.sampled_from(["", "0", "fullmesh", "fullmesh_v2", "hierarchy"]),
)
def test_no_call_makes_a_rule_fail(op, product, contract, safety, attributes, tensors, comm_alg):
    """Whatever the numbers: a list of violations, never an exception of a rule's own."""
    other = "expand_x" if op == "dispatch" else "x"
    args = {**call(op), **attributes, **tensors, "comm_alg": comm_alg}
    args.pop(other, None)
    for violation in violations(op, args, product=product, contract=contract, safety=safety):
        assert str(violation).isascii()
        assert "\n" not in str(violation)


def test_the_contract_needs_no_torch():
    code = (
        "import ascend_moe.contract.check, ascend_moe.contract.buffsize, ascend_moe.cli.explain, sys\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_are_public():
    for name in ("check_dispatch", "check_combine", "required_hccl_buffsize", "BuffSize"):
        assert name in ascend_moe.__all__
    assert issubclass(ConstraintError, ValueError)


def test_who_serves_elastic_info_decides():
    """CANN's kernels do not, ours and CPU tensors do, on A3 full mesh without TP."""
    given = {"product": "A3", "contract": "cann-9.1"}
    elastic = call(elastic_info=(36, "int32"), contract="cann-9.1")
    for implementation, rules in (
        (None, ["X-30"]),
        ("stock", ["X-30"]),
        ("ascend_moe", []),
        ("cpu", []),
    ):
        found = check_dispatch(**given, implementation=implementation, **elastic)
        assert [v.rule for v in found] == rules, implementation
    on_cpu = {
        name: torch.zeros(value.shape, dtype=getattr(torch, value.dtype))
        for name, value in elastic.items()
        if isinstance(value, DescribedTensor)
    }
    on_cpu["expert_ids"] = torch.arange(8).repeat(8, 1).int()
    assert check_dispatch(**given, **elastic | on_cpu) == []
    words = on_cpu["elastic_info"].index_fill(0, torch.tensor([0]), 3)
    (found,) = check_dispatch(**given, **elastic | on_cpu | {"elastic_info": words})
    assert (found.rule, found.message) == ("X-47", "word 0 is 3, needed: 0 or 1")
    with pytest.raises(
        ValueError, match="implementation is 'gpu', allowed: stock, ascend_moe, cpu"
    ):
        check_dispatch(**given, implementation="gpu", **elastic)


@pytest.mark.parametrize(
    ("product", "contract", "changes", "words"),
    [
        ("A2", "cann-9.1", {}, "A2 fullmesh under cann-9.1 takes None only"),
        ("A3", "cann-8.2", {}, "A3 fullmesh under cann-8.2 takes None only"),
        ("A3", "cann-9.1", {"path": "hierarchy"}, "A3 hierarchy under cann-9.1 takes None only"),
        ("A3", "cann-9.1", {"elastic_info": (35, "int32")}, "shape is (35,), needed: (36,)"),
        ("A3", "cann-9.1", {"elastic_info": (36, "int64")}, "dtype is int64, allowed: int32"),
    ],
)
def test_where_elastic_info_is_refused(product, contract, changes, words):
    info = {"elastic_info": (36, "int32")}
    broken = call(product=product, contract=contract, **info | changes)
    found = check_dispatch(product=product, contract=contract, implementation="cpu", **broken)
    assert [v.rule for v in found if v.param != "HCCL_BUFFSIZE"] == ["X-30"]
    assert words in found[0].message


def test_elastic_info_makes_buffers_as_large_as_any_rank_needs():
    """A MoE rank's A for a shared rank, and the counts of its experts."""
    world = {"shared_expert_num": 1, "shared_expert_rank_num": 2, "moe_expert_num": 28}
    small = call("combine", contract="cann-9.1", **world)
    given = {"product": "A3", "contract": "cann-9.1", "implementation": "cpu"}
    assert check_combine(**given, **small) == []
    found = check_combine(**given, **small | {"elastic_info": DescribedTensor((36,), "int32")})
    assert [v.rule for v in found] == ["C-02", "C-03", "C-04"]
