"""Files of ASCEND_MOE_TUNING as the model reads them, and the search for cores; tests/vnpu has the library."""

from __future__ import annotations

import json

import pytest

from kernels.proof.machine import machine
from kernels.proof.timing import Shape, cores_of
from kernels.proof.tuning import CoreChoice, TuningError, best, checked_in, load, over, text

ROW = {"operator": "combine", "ep": 16, "rows": 64, "cores": 24}

WRONG = [
    ("{", "is no JSON: Expecting property name"),
    ("\xff\xfe", "is no JSON: "),
    ([], "must be an object, is []"),
    ({"product": "A3", "format": 2}, "format is 2, must be 1"),
    ({}, "product is missing, must be A3 or A2"),
    ({"product": "A5"}, 'product is "A5", must be A3 or A2'),
    ({"product": "A2"}, 'product is "A2", this is A3'),
    ({"product": "A3", "virtual": 1}, "virtual is 1, must be true or false"),
    ({"product": "A3", "machine": []}, "machine is [], must be an object"),
    ({"product": "A3", "machine": {"speed": 1}}, "machine.speed is no figure of the model"),
    ({"product": "A3", "machine": {"memory": "x"}}, 'machine.memory is "x", must be a number'),
    ({"product": "A3", "machine": {"memory": 0}}, "machine.memory is 0, must be 0.001 to 1e9"),
    ({"product": "A3", "cores": {}}, "cores is {}, must be a list"),
    ({"product": "A3", "cores": [1]}, "cores[0] is 1, must be an object"),
    (
        {"product": "A3", "cores": [ROW, ROW | {"operator": "sum"}]},
        'cores[1].operator is "sum", must be one of dispatch_int8, ',
    ),
    ({"product": "A3", "cores": [ROW | {"cores": 49}]}, "cores[0].cores is 49, must be 1 to 48"),
    ({"product": "A3", "cores": [ROW | {"cores": 0}]}, "cores[0].cores is 0, must be 1 to 48"),
    ({"product": "A3", "cores": [ROW | {"ep": 1.5}]}, "cores[0].ep is 1.5, must be 1 to 768"),
    ({"product": "A3", "cores": [{**ROW, "rows": None}]}, "cores[0].rows is missing, must be 1 to"),
    ({"product": "A3", "cores": [ROW, ROW]}, "cores[1] says again what combine takes for ep 16"),
]


@pytest.mark.parametrize(("content", "why"), WRONG)
def test_what_is_wrong_is_named(tmp_path, content, why):
    file = tmp_path / "tuning.json"
    raw = content.encode("latin-1") if isinstance(content, str) else json.dumps(content).encode()
    file.write_bytes(raw)
    with pytest.raises(TuningError) as error:
        load(file, "A3")
    assert str(error.value).startswith(str(file))
    assert why in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(TuningError, match="No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(TuningError, match="directory"):
        load(tmp_path)


def test_which_row_a_call_takes():
    tuning = checked_in("A3")
    table = [
        CoreChoice("combine", ep, rows, cores)
        for ep, rows, cores in ((8, 64, 1), (8, 512, 2), (32, 8, 3), (32, 64, 4))
    ]
    tuning = type(tuning)(tuning.path, "A3", cores=table)
    for ep, rows, cores in (
        *((2, 1, 1), (8, 64, 1), (8, 65, 2), (8, 9999, 2)),
        *((9, 1, 3), (32, 9, 4), (32, 65, 4), (768, 8, 3)),
    ):
        assert tuning.choose("combine", ep, rows) == cores, (ep, rows)
    assert tuning.choose("dispatch_int8", 8, 64) is None


def test_a_file_goes_before_the_table(tmp_path):
    file = tmp_path / "tuning.json"
    head = {"product": "A3", "virtual": True, "machine": {"server_rate": 99.5}}
    file.write_text(text(head, [CoreChoice("combine", 16, 64, 5)]))
    tuning = load(file, "A3")
    assert (tuning.virtual, tuning.machine["server_rate"]) == (True, 99.5)
    assert tuning.machine["beyond_rate"] == machine("A3")["beyond_rate"]
    assert over(tuning, "A3").choose("combine", 8, 8) == 5
    int8 = Shape("dispatch_int8", 8, 8)
    assert cores_of(int8, tuning.machine, tuning) == cores_of(int8, machine("A3"))
    assert cores_of(Shape("combine", 8, 8), tuning.machine, tuning) == 5


@pytest.mark.parametrize("product", ["A2", "A3"])
def test_every_operator_of_the_table_has_small_and_large_calls(product):
    cores = checked_in(product).cores
    for operator in ("dispatch_int8", "dispatch_bf16", "combine"):
        rows = {choice.rows for choice in cores if choice.operator == operator}
        assert min(rows) <= 8
        assert max(rows) >= 1024


def test_a_core_more_must_gain_something():
    assert best({8: 20.0, 16: 10.09, 24: 10.0, 32: 10.2}) == 16
    assert best({8: 20.0, 16: 10.2, 24: 10.0}) == 24


def test_a_machine_has_no_other_figures():
    with pytest.raises(ValueError, match="no figures of a machine: speed"):
        machine("A3").with_values(speed=1)
