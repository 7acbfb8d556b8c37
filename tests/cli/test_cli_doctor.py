import json
from pathlib import Path

import pytest

from ascend_moe.cli import doctor, main
from ascend_moe.contract.resolve import resolve_contract, resolve_product
from ascend_moe.hardware import cann, driver, product


@pytest.fixture(autouse=True)
def no_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (*doctor.VARIABLES, "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH"):
        monkeypatch.delenv(name, raising=False)


def report(capsys, *words):
    code = main(["doctor", *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, [problem["rule"] for problem in found["problems"]], found


def test_nothing_wrong(capsys):
    code, rules, found = report(capsys)
    assert (code, rules) == (0, [])
    assert found["product"] == "A3"
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "no known problem"


@pytest.mark.parametrize(
    ("env", "words", "rule"),
    [
        ({"HCCL_OP_EXPANSION_MODE": "AIV"}, [], "E-13"),
        ({"HCCL_BUFFSIZE": "65536"}, [], "E-01"),
        ({"HCCL_BUFFSIZE_EP": "2048"}, [], "E-01"),
        ({"HCCL_BUFFSIZE": "512", "DEEPEP_HCCL_BUFFSIZE": "1024"}, [], "X-40"),
        ({"HCCL_INTRA_PCIE_ENABLE": "1", "HCCL_INTRA_ROCE_ENABLE": "0"}, [], "E-02"),
        ({}, ["--product", "A2", "--ep", "8"], "E-12"),
        ({"ASCEND_CUSTOM_OPP_PATH": "/nonexistent"}, [], ""),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_known_problems(monkeypatch, capsys, env, words, rule):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert report(capsys, *words)[:2] == (1, [rule])


@pytest.mark.parametrize(("version", "rules"), [("24.1.0.3", ["E-04"]), ("25.0.rc1.1", [])])
def test_driver(monkeypatch, capsys, tmp_path, version, rules):
    file = tmp_path / "version.info"
    file.write_text(f"Version={version}\nascendhal_version=7.35\n")
    assert driver.driver_version((file,)) == version
    monkeypatch.setattr(doctor, "driver_version", lambda: version)
    assert report(capsys)[1] == rules


@pytest.mark.parametrize(
    ("version", "cann_text", "rules"),
    [
        ("25.0.rc1.1", "9.1.0", ["E-04"]),
        ("25.0.5", "9.2.0", ["E-04"]),
        ("24.1.0.3", "9.1.1", ["E-04"]),
        ("25.2.0", "9.1.0", []),
        ("26.0.rc1", "9.2.0", []),
        ("25.0.rc1.1", "9.0.0", []),
        ("25.0.rc1.1", "8.5.0", []),
    ],
)
def test_driver_by_cann(monkeypatch, capsys, tmp_path, version, cann_text, rules):
    (tmp_path / "version.cfg").write_text(f"version={cann_text}\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "driver_version", lambda: version)
    assert report(capsys)[1] == rules


def test_the_ops_package_decides_the_contract(monkeypatch, tmp_path):
    operators = tmp_path / "share/info/ops_transformer/version.info"
    (tmp_path / "version.cfg").write_text("version=8.2.RC1\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setattr(product, "present_product", lambda: product.Present("A3", "Ascend910_93"))
    assert resolve_contract("dispatch", {}) == ("cann-8.2", "CANN 8.2")
    operators.parent.mkdir(parents=True)
    operators.write_text("Version=9.1.0\n")
    assert resolve_contract("dispatch", {}) == ("cann-9.1", "ops package 9.1")
    operators.write_text("nothing\n")
    assert resolve_contract("dispatch", {}) == ("cann-8.2", "CANN 8.2")


def test_ascend950_is_refused_by_name(monkeypatch, capsys):
    monkeypatch.setattr(product, "chip_on_pci_bus", lambda path: "Ascend950")
    product.present_product.cache_clear()
    try:
        assert main(["doctor"]) == 2
    finally:
        product.present_product.cache_clear()
    error = capsys.readouterr().err
    assert "Ascend950 is neither A2" in error
    assert "ElasticBuffer" in error
    for name in ("A5", "Ascend950DT", "950"):
        with pytest.raises(ValueError, match="ElasticBuffer"):
            resolve_product(name)


def test_markdown_is_a_block_for_an_issue(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", "/home/somebody/a|b")
    assert main(["doctor", "--markdown"]) == 1
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[:4] == ["### ascend-moe doctor", "", "| what | value |", "|---|---|"]
    assert "| ASCEND_CUSTOM_OPP_PATH | ~/a\\|b |" in lines
    assert any(line.startswith("- no ") for line in lines)
    assert "somebody" not in text
    monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH")
    assert main(["doctor", "--markdown"]) == 0
    assert capsys.readouterr().out.endswith("none known\n")


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("aarch64-linux/ascend_toolkit_install.info", "package_name=x\nversion=8.2.RC1\n", (8, 2)),
        ("compiler/version.info", "Version=7.7.0\nversion=9.1.0\n", (7, 7)),
        ("version.cfg", "# v\ntoolkit_running_version=[8.3.RC1]\n", (8, 3)),
        ("opp/version.info", "nothing\n", None),
    ],
)
def test_cann(monkeypatch, tmp_path, file, text, version):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert cann.cann_home() == tmp_path
    assert cann.cann_version() == version


@pytest.mark.parametrize(
    ("vendor", "device", "chip"),
    [
        ("0x19e5", "0xd802", "Ascend910B"),
        ("0x19e5", "0xd803", "Ascend910_93"),
        ("0x19e5", "0xd500", "Ascend310P"),
        ("0x19e5", "0x1822", None),
        ("0x10de", "0xd802", None),
    ],
)
def test_chip_on_the_pci_bus(tmp_path, vendor, device, chip):
    entry = tmp_path / "0000:c1:00.0"
    entry.mkdir()
    (entry / "vendor").write_text(f"{vendor}\n")
    (entry / "device").write_text(f"{device}\n")
    (tmp_path / "0000:00:00.0").mkdir()
    assert product.chip_on_pci_bus(tmp_path) == chip
    assert product.chip_on_pci_bus(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("chip", "expected"),
    [
        ("Ascend910B3", "A2"),
        ("Ascend910_9382", "A3"),
        ("Ascend310P3", None),
        ("Ascend910A", None),
        ("Ascend950", None),
    ],
)
def test_product_of_chip(chip, expected):
    assert product.product_of_chip(chip) == expected


def test_compare_nodes(monkeypatch, capsys, tmp_path):
    files = []
    for index, size in enumerate(("512", "512", "1024")):
        monkeypatch.setenv("HCCL_BUFFSIZE", size)
        assert main(["doctor", "--json"]) == 0
        file = tmp_path / f"node{index}.json"
        file.write_text(capsys.readouterr().out)
        files.append(str(file))
    assert main(["doctor", "--compare", *files[:2]]) == 0
    assert "no known problem" in capsys.readouterr().out
    assert main(["doctor", "--compare", *files]) == 1
    assert "hccl_buffsize_mb differs: 512 in" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", ["", "[]", "{}", "{"])
def test_compare_refuses_other_files(capsys, tmp_path, content):
    file = tmp_path / "node.json"
    file.write_text(content)
    assert main(["doctor", "--compare", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
