"""ASCEND_MOE_TUNING in the host library: the cores of its rows, and what is wrong with it, on all ranks."""

from __future__ import annotations

import json
import re

import pytest

from kernels.proof.tuning import checked_in


def row(operator: str, cores: int) -> dict[str, object]:
    return {"operator": operator, "ep": 8, "rows": 64, "cores": cores}


GOOD = {"product": "A3", "machine": {}, "cores": [row("dispatch_bf16", 5), row("combine", 7)]}
OTHER = GOOD | {"virtual": True, "cores": [row("dispatch_bf16", 3)]}
# What is in a file, and what the library says of it; tests/kernels/test_tuning.py has the same in Python.
WRONG = {
    "brace": ("{", "no JSON, line 1: a name is missing"),
    "comma": ('{"product": "A3"\n"cores": []}', "no JSON, line 2: ',' or '}' is missing"),
    "word": ('{"product": A3}', "no JSON, line 1: no value of JSON"),
    "deep": ("[" * 99, "no JSON, line 1: nested too deeply"),
    "twice": ('{"product": "A3", "product": "A2"}', '"product" for the second time'),
    "format": ({"format": 2}, "format is 2, must be 1"),
    "product": ({"product": "A2"}, 'product is "A2", must be "A3" here'),
    "none": ({}, 'product is missing, must be "A3" here'),
    "virtual": ({"product": "A3", "virtual": 1}, "virtual is 1, must be true or false"),
    "machine": ({"product": "A3", "machine": 1}, "machine is 1, must be an object"),
    "list": ({"product": "A3", "cores": {}}, "cores is an object, must be a list"),
    "item": ({"product": "A3", "cores": [1]}, "cores[0] is 1, must be an object"),
    "operator": (
        {"product": "A3", "cores": [row("combine", 1), row("sum", 1)]},
        'cores[1].operator is "sum", must be one of dispatch_int8, ',
    ),
    "many": ({"product": "A3", "cores": [row("combine", 49)]}, "cores[0].cores is 49, must be 1"),
    "half": ({"product": "A3", "cores": [row("combine", 1) | {"ep": 0.5}]}, "cores[0].ep is 0.5,"),
    "again": ({"product": "A3", "cores": 2 * [row("combine", 1)]}, "cores[1] says again what"),
}


@pytest.fixture(scope="module")
def told(run, tmp_path_factory):
    """What every rank said, by case and rank, and the cores of the launches, by file and kernel."""
    folder = tmp_path_factory.mktemp("tuning")
    contents = {"good": GOOD, "other": OTHER} | {name: text for name, (text, _) in WRONG.items()}
    paths = {"": "", "absent": str(folder / "absent.json"), "folder": str(folder)}
    for name, content in contents.items():
        file = folder / f"{name}.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        paths[name] = str(file)
    two = ["good", "other"]
    files = {"table": ["", ""], "apart": two, "one": ["", "many"]}
    files |= {name: [name, name] for name in (*WRONG, "absent", "folder")}
    cases = [
        {"name": name, "files": [paths[file] for file in pair], "tp": 1}
        for name, pair in files.items()
    ]
    cases.append({"name": "pairs", "files": [paths[file] for file in two], "tp": 2})
    done = run(
        *("tuning.py", json.dumps(cases)),
        environment={"ASCEND_MOE_VNPU_TRACE": str(folder / "trace")},
        timeout=280,
    )
    found = re.findall(r"^(\w+) rank (\d): (.*)", done.stdout, re.MULTILINE)
    texts = {(case, int(rank)): text for case, rank, text in found}
    launches = [json.loads(line) for line in (folder / "trace").read_text().splitlines()]
    return texts, launches, done.stdout, paths


def cores(launches, kernel: str) -> list[int]:
    return [one["cores"] for one in launches if one["kernel"] == f"ascend_moe_{kernel}"]


def test_the_cores_of_a_launch(told):
    """The table's without a file, the file's where it has the operator; ranks may differ."""
    texts, launches, said, paths = told
    for case in ("table", "apart"):
        assert [texts[case, rank] for rank in (0, 1)] == ["right", "right"]
    table = {name: checked_in("A3").choose(name, 2, 16) for name in ("dispatch_bf16", "combine")}
    assert sorted(cores(launches, "dispatch")[:2]) == 2 * [table["dispatch_bf16"]]
    assert sorted(cores(launches, "combine")[:2]) == 2 * [table["combine"]]
    assert sorted(cores(launches, "dispatch")[2:4]) == [3, 5]
    assert sorted(cores(launches, "combine")[2:4]) == sorted([7, table["combine"]])
    assert f", cores by {paths['good']})" in said


def test_tp_pairs_keep_to_the_table(told):
    """With one file each the two would come with different numbers of cores."""
    texts, launches, _, _ = told
    assert [texts["pairs", rank] for rank in range(4)] == 4 * ["right"]
    table = {name: checked_in("A3").choose(name, 2, 16) for name in ("dispatch_bf16", "combine")}
    assert cores(launches, "dispatch")[-4:] == 4 * [table["dispatch_bf16"]]
    assert cores(launches, "combine")[-4:] == 4 * [table["combine"]]


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(told, case):
    texts, _, _, paths = told
    for rank in (0, 1):
        assert f"ASCEND_MOE_TUNING={paths[case]}: " in texts[case, rank]
        assert WRONG[case][1] in texts[case, rank]


def test_no_file(told):
    texts, _, _, paths = told
    for case in ("absent", "folder"):
        assert f"ASCEND_MOE_TUNING={paths[case]}: there is no such file" in texts[case, 0]


def test_the_other_rank_is_told(told):
    texts, _, _, _ = told
    assert "cores[0].cores is 49, must be 1 to 48" in texts["one", 1]
    assert "rank 1" in texts["one", 0]
    assert "cores[0].cores is 49" in texts["one", 0]
