import json

import pytest

from ascend_moe.cli import main
from ascend_moe.contract.description import describe_call, read_call
from ascend_moe.contract.examples import example_call, settings
from ascend_moe.gate import RULE_VARIABLES

CALL = {
    "op": "dispatch",
    "x": {"shape": [8, 7168], "dtype": "bfloat16"},
    "expert_ids": {"shape": [8, 8], "dtype": "int32"},
    "group_ep": "ep",
    "ep_world_size": 16,
    "ep_rank_id": 0,
    "moe_expert_num": 64,
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in RULE_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def run(tmp_path, document, *flags):
    file = tmp_path / "call.json"
    file.write_text(json.dumps(document))
    return main(["check", str(file), *flags])


def test_legal(tmp_path, capsys):
    assert run(tmp_path, CALL) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "npu_moe_distribute_dispatch_v2: legal under contract cann-8.2" in text


def test_illegal(tmp_path, capsys):
    document = CALL | {"quant_mode": 1, "ep_rank_id": 16}
    assert run(tmp_path, document) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["X-07", "D-12"]


def test_warning_alone_is_no_refusal(tmp_path, capsys):
    assert run(tmp_path, CALL | {"env": {"HCCL_BUFFSIZE": "524288"}}) == 0
    assert "E-01 warning" in capsys.readouterr().out


def test_a_window_that_hccl_refuses(tmp_path, capsys):
    assert run(tmp_path, CALL | {"env": {"HCCL_BUFFSIZE": "512MB"}}) == 1
    assert "E-01 error HCCL_BUFFSIZE: HCCL refuses '512MB'" in capsys.readouterr().out


def test_file_names_product_contract_and_env_and_flags_win(tmp_path, capsys):
    document = CALL | {"product": "A2", "contract": "cann-9.1", "ep_world_size": 128}
    document |= {"moe_expert_num": 128, "env": {"HCCL_BUFFSIZE": "1000"}}
    assert run(tmp_path, document) == 0
    assert run(tmp_path, document, "--contract", "cann-8.2") == 1
    assert "X-05" in capsys.readouterr().out
    assert run(tmp_path, document, "--product", "A3", "--contract", "cann-8.2") == 0


def test_without_env_the_environment_counts(tmp_path, monkeypatch):
    large = CALL | {"x": {"shape": [64, 7168], "dtype": "bfloat16"}, "moe_expert_num": 256}
    large |= {"expert_ids": {"shape": [64, 8], "dtype": "int32"}}
    assert run(tmp_path, large) == 1
    monkeypatch.setenv("HCCL_BUFFSIZE", "478")
    assert run(tmp_path, large) == 0
    assert run(tmp_path, large | {"env": {}}) == 1


def test_json(tmp_path, capsys):
    assert run(tmp_path, CALL | {"quant_mode": 1}, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["operator", "product", "contract", "legal", "hint", "violations"]
    (violation,) = found["violations"]
    assert list(violation) == ["rule", "level", "param", "message", "value", "limit"]
    assert (violation["rule"], found["legal"]) == ("D-12", False)


@pytest.mark.parametrize("setting", list(settings()), ids=str)
def test_description_survives_the_round_trip(setting):
    example = example_call(setting, {})
    described = describe_call(
        setting.op,
        example.args,
        product=setting.product,
        contract=setting.contract,
        env=example.env,
    )
    call = read_call(json.loads(json.dumps(described)))
    assert (call.op, call.product, call.contract) == (
        setting.op,
        setting.product,
        setting.contract,
    )
    assert call.args == example.args
    assert call.env == example.env


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"op": "gather"}, "\"op\" is 'gather'"),
        ({"op": None}, '"op" is None'),
        ({"x": 7}, '"x" must be an object'),
        ({"x": {"shape": [8, -1], "dtype": "bfloat16"}}, '"shape" must be a list of sizes'),
        ({"x": {"shape": [8, 10**30], "dtype": "bfloat16"}}, '"shape" must be a list of sizes'),
        ({"x": {"shape": [8, True], "dtype": "bfloat16"}}, '"shape" must be a list of sizes'),
        ({"x": {"shape": [8, 8], "dtype": "bf16"}}, "not the name of a torch dtype"),
        ({"x": {"shape": [8, 8], "dtype": "int32", "layout": 1}}, "unknown key 'layout'"),
        ({"ep_world_size": "16"}, "ep_world_size must be an int, not str"),
        ({"ep_world_size": True}, '"ep_world_size" must be a number'),
        ({"ep_world_size": 10**400}, "does not fit into 64 bits"),
        ({"ep_world_size": 1.5}, "must be an int, not float"),
        ({"ep_world_size": None}, "must be an int, not NoneType"),
        ({"wrold": 1}, "unexpected keyword argument 'wrold'"),
        ({"env": {"HCCL_BUFFSIZE": 200}}, '"env" must be an object whose values are strings'),
        ({"env": []}, '"env" must be an object'),
        ({"product": "A5"}, "Ascend 950 has other limits"),
        ({"product": "A7"}, "product is 'A7', allowed: A2, A3"),
        ({"product": 3}, '"product" must be a string'),
        ({"contract": "newest"}, "contract is 'newest'"),
    ],
    ids=range(20),
)
def test_what_the_file_may_not_hold(tmp_path, capsys, change, words):
    assert run(tmp_path, CALL | change) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert words in error


def test_missing_file_and_missing_keyword(tmp_path, capsys):
    assert main(["check", str(tmp_path / "none.json")]) == 2
    assert main(["check", str(tmp_path)]) == 2
    assert run(tmp_path, {"op": "dispatch"}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "misses required arguments: ep_rank_id, ep_world_size, expert_ids" in lines[2]


def test_who_will_run_it(tmp_path, capsys):
    elastic = CALL | {"elastic_info": {"shape": [4 + 2 * CALL["ep_world_size"]], "dtype": "int32"}}
    elastic |= {"contract": "cann-9.1", "env": {"HCCL_BUFFSIZE": "4000"}}
    assert run(tmp_path, elastic) == 1
    assert "X-30" in capsys.readouterr().out
    assert run(tmp_path, elastic, "--implementation", "ascend_moe") == 0
    assert run(tmp_path, elastic, "--implementation", "cpu") == 0
