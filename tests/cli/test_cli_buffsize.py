import json

import pytest

from ascend_moe.cli import main

SEED = [
    "--product",
    "A3",
    "--max-bs",
    "64",
    "--hidden",
    "7168",
    "--topk",
    "8",
    "--ep",
    "16",
    "--experts",
    "256",
]
JSON_KEYS = [
    "product",
    "contract",
    "algorithm",
    "required_bytes",
    "required_mb",
    "configured_mb",
    "configured_from",
    "fits",
    "largest_max_bs",
    "formula",
    "export",
    "violations",
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("HCCL_BUFFSIZE", "ASCEND_MOE_PRODUCT", "ASCEND_MOE_CONTRACT"):
        monkeypatch.delenv(name, raising=False)


def run(*words):
    return main(["buffsize", *map(str, words)])


def report(capsys, *words):
    code = run(*words, "--json")
    return code, json.loads(capsys.readouterr().out)


def usage(*words):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    return caught.value.code


@pytest.mark.parametrize(("have", "code"), [(478, 0), (477, 1), (479, 0), (0, 1)])
def test_exit_code(have, code, capsys):
    assert run(*SEED, "--have", have) == code


def test_json(capsys):
    code, found = report(capsys, *SEED, "--have", 477)
    assert code == 1
    assert list(found) == JSON_KEYS
    assert found["required_bytes"] == 501219328
    assert found["required_mb"] == 478
    assert found["largest_max_bs"] == 63
    assert found["fits"] is False
    assert found["configured_from"] == "--have"
    assert found["export"] == "export HCCL_BUFFSIZE=478"
    assert found["contract"] == "cann-8.2"


def test_configured_size_is_have_then_variable_then_default(monkeypatch, capsys):
    assert report(capsys, *SEED)[1]["configured_from"] == "default"
    assert report(capsys, *SEED)[1]["configured_mb"] == 200
    monkeypatch.setenv("HCCL_BUFFSIZE", "478")
    code, found = report(capsys, *SEED)
    assert (code, found["configured_mb"], found["configured_from"]) == (0, 478, "HCCL_BUFFSIZE")
    assert report(capsys, *SEED, "--have", 1)[1]["configured_mb"] == 1


SMALL = [
    "--product",
    "A3",
    "--hidden",
    "2048",
    "--topk",
    "6",
    "--experts",
    "32",
    "--ep",
    "8",
    "--max-bs",
    "8",
]


@pytest.mark.parametrize("text", ["300M", "-5", "lots", "0", ""])
@pytest.mark.parametrize("how", ["variable", "--have"])
def test_a_size_that_hccl_refuses_is_no_fit(text, how, monkeypatch, capsys):
    if how == "variable":
        monkeypatch.setenv("HCCL_BUFFSIZE", text)
    words = SMALL if how == "variable" else [*SMALL, f"--have={text}"]
    code, found = report(capsys, *words)
    assert (code, found["fits"], found["configured_mb"]) == (1, False, 0)
    assert [(each["rule"], each["level"]) for each in found["violations"]] == [("E-01", "error")]
    assert run(*words) == 1
    assert "EI0001" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "meant"), [("524288", "512"), ("314572800", "300")])
@pytest.mark.parametrize("how", ["variable", "--have"])
def test_kilobytes_and_bytes_are_asked_about(text, meant, how, monkeypatch, capsys):
    if how == "variable":
        monkeypatch.setenv("HCCL_BUFFSIZE", text)
    assert run(*SMALL, *([] if how == "variable" else ["--have", text])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "MB, not KB or bytes?" in said
    assert f"Did you mean {meant}?" in said


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("--product A2 --hidden 4096 --topk 8 --experts 512 --ep 16 --max-bs 16", "X-12"),
        ("--product A3 --hidden 2048 --topk 20 --experts 64 --ep 16 --max-bs 16", "X-26"),
        ("--product A3 --hidden 512 --topk 8 --experts 64 --ep 16 --max-bs 16", "X-25"),
        ("--product A3 --hidden 2048 --topk 8 --experts 64 --ep 16 --max-bs 600", "X-24"),
    ],
    ids=["X-12", "X-26", "X-25", "X-24"],
)
def test_a_call_that_breaks_a_rule_never_fits(words, rule, capsys):
    code, found = report(capsys, *words.split(), "--have", "60000")
    assert (code, found["fits"]) == (1, False)
    assert [each["rule"] for each in found["violations"] if each["level"] == "error"] == [rule]
    assert run(*words.split(), "--have", "60000") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "verdict fits" not in said
    assert f"it breaks {rule}" in said


def test_human_output_survives_80_columns(capsys):
    run(*SEED, "--have", 477)
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.isascii()
    for phrase in (
        "HCCL_BUFFSIZE is too SMALL",
        "export HCCL_BUFFSIZE=478",
        "956 MB",
        "asks for 480 MB",
        "would print 479 MB",
    ):
        assert phrase in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "mb"),
    [
        (["--algorithm", "fullmesh_v2"], 494),
        (["--algorithm", "fullmesh_v2", "--op", "combine"], 478),
        (["--algorithm", "fullmesh"], 478),
        (["--product", "A2", "--algorithm", "hierarchy", "--ep", 32], 242),
        (
            ["--product", "A2", "--algorithm", "hierarchy", "--ep", 32, "--contract", "cann-8.2"],
            330,
        ),
        (["--product", "A2", "--ep", 32], 452),
        (["--redundant-experts", 16], 507),
        (["--experts", 224, "--shared-experts", 1, "--shared-ranks", 2], 480),
    ],
    ids=str,
)
def test_flags(words, mb, capsys):
    assert report(capsys, *SEED, *words)[1]["required_mb"] == mb


def test_named_algorithm_is_not_overruled_by_variables(monkeypatch, capsys):
    monkeypatch.setenv("HCCL_INTRA_PCIE_ENABLE", "1")
    monkeypatch.setenv("HCCL_INTRA_ROCE_ENABLE", "0")
    a2 = [*SEED, "--product", "A2", "--ep", "32"]
    assert report(capsys, *a2)[1]["algorithm"] == "hierarchy"
    assert report(capsys, *a2, "--algorithm", "fullmesh")[1]["algorithm"] == "fullmesh"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--max-bs", "4"],
        [*SEED, "--max-bs", "0"],
        [*SEED, "--max-bs", "9" * 5000],
        [*SEED, "--max-bs", "-1"],
        [*SEED, "--max-bs", "1.5"],
        [*SEED, "--product", "A5"],
        [*SEED, "--algorithm", "ring"],
        [*SEED, "--experts", "250"],
        [*SEED, "--model", "/nonexistent"],
    ],
    ids=range(10),
)
def test_usage_errors_exit_2_with_one_clear_line(words, capsys):
    try:
        code = run(*words)
    except SystemExit as caught:
        code = caught.code
    assert code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.strip()


def config(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


FLAGS = ["--product", "A3", "--max-bs", "64", "--ep", "16"]


@pytest.mark.parametrize(
    ("content", "experts"),
    [
        ({"n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1}, 256),
        ({"num_experts": 128, "num_experts_per_tok": 8}, 128),
        ({"num_local_experts": 64, "moe_top_k": 8}, 64),
        ({"moe_num_experts": 64, "top_k_experts": 8}, 64),
        ({"num_experts": 64, "num_local_experts": 64, "num_experts_per_tok": 8}, 64),
        ({"num_experts": None, "n_routed_experts": 64, "num_experts_per_tok": 8}, 64),
    ],
    ids=str,
)
def test_model_aliases(tmp_path, capsys, content, experts):
    path = config(tmp_path, {"hidden_size": 7168, **content})
    _, found = report(capsys, *FLAGS, "--model", path)
    _, same = report(capsys, *FLAGS, *f"--hidden 7168 --topk 8 --experts {experts}".split())
    assert found == same, "n_shared_experts does not count"


@pytest.mark.parametrize(
    ("content", "sizes", "key"),
    [
        ({"moe_num_experts": 64, "moe_k": 6}, (7168, 6, 64), "moe_k"),
        ({"num_experts": 64, "moe_topk": [8, 8, 8]}, (7168, 8, 64), "moe_topk"),
        ({"num_experts": [64, 64], "num_experts_per_tok": 8}, (7168, 8, 64), "num_experts"),
        ({"num_experts": 64, "num_experts_per_tok": 8, "moe_latent_size": 2048}, (2048, 8, 64), "moe_latent_size"),
        ({"num_experts": 64, "num_experts_per_tok": 8, "moe_latent_size": None}, (7168, 8, 64), "hidden_size"),
        (
            {"num_experts": 64, "num_experts_per_tok": 8, "routed_expert_hidden_size": 3584},
            (3584, 8, 64),
            "routed_expert_hidden_size",
        ),
        (
            {"d_model": 4096, "hidden_size": None, "ffn_config": {"moe_num_experts": 16, "moe_top_k": 4}},
            (4096, 4, 16),
            "ffn_config.moe_top_k",
        ),
    ],
    ids=["moe_k", "per layer", "experts per layer", "latent", "no latent", "routed", "nested"],
)  # fmt: skip
def test_model_keys_of_latent_experts_lists_and_parts(tmp_path, capsys, content, sizes, key):
    path = config(tmp_path, {"hidden_size": 7168, **content})
    hidden, topk, experts = sizes
    _, found = report(capsys, *FLAGS, "--model", path)
    words = ["--hidden", hidden, "--topk", topk, "--experts", experts]
    assert found == report(capsys, *FLAGS, *words)[1]
    run(*FLAGS, "--model", path)
    assert f"({key})" in capsys.readouterr().out


def test_model_nested_and_as_a_directory(tmp_path, capsys):
    text = {"hidden_size": 4096, "num_experts": 128, "num_experts_per_tok": 8}
    config(tmp_path, {"hidden_size": 1, "text_config": text, "vision_config": {"hidden_size": 99}})
    _, found = report(capsys, *FLAGS, "--model", tmp_path)
    _, same = report(capsys, *FLAGS, *["--hidden", "4096", "--topk", "8", "--experts", "128"])
    assert found == same


def test_flags_win_over_the_model_and_redundant_experts_add(tmp_path, capsys):
    path = config(
        tmp_path, {"hidden_size": 7168, "n_routed_experts": 256, "num_experts_per_tok": 8}
    )
    found = report(capsys, *FLAGS, "--model", path, "--redundant-experts", 16)[1]
    same = report(capsys, *FLAGS, *["--hidden", "7168", "--topk", "8", "--experts", "272"])[1]
    assert found == same
    found = report(capsys, *FLAGS, "--model", path, "--experts", 128)[1]
    same = report(capsys, *FLAGS, *["--hidden", "7168", "--topk", "8", "--experts", "128"])[1]
    assert found == same


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"hidden_size": 1, "num_experts": 8, "n_routed_experts": 9}, ["num_experts = 8", "= 9"]),
        ({"hidden_size": 1, "num_attention_heads": 8}, ["names no experts: a dense model?"]),
        (
            {"hidden_size": 1, "moe_topk": [8, 6], "num_experts": 8},
            ["topk differs between layers", "--topk"],
        ),
        ({"hidden_size": 1, "moe_topk": [], "num_experts": 8}, ["topk differs between layers"]),
        ({"hidden_size": 1, "num_experts": 8}, ["no topk", "num_experts_per_tok"]),
        ({"hidden_size": "wide"}, ["hidden is not an integer"]),
        ({"hidden_size": True}, ["hidden is not an integer"]),
        ("[1, 2]", ["no JSON object"]),
        ("{", ["not JSON"]),
        ("[" * 100000, ["not JSON"]),
        ('{"hidden_size": 1' + "0" * 5000 + "}", ["not JSON"]),
        ({"hidden_size": -4, "num_experts": 16, "num_experts_per_tok": 8}, ["hidden is -4"]),
    ],
    ids=range(12),
)
def test_model_problems_are_named(tmp_path, capsys, content, words):
    assert run(*FLAGS, "--model", config(tmp_path, content)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("flags", "max_bs", "derivation"),
    [
        ("--max-num-seqs 64", 64, "max-num-seqs 64 * (1 + spec-tokens 0) = 64"),
        ("--max-num-seqs 64 --spec-tokens 1", 128, "= 128"),
        ("--max-num-seqs 65 --serving-tp 4", 17, "over serving-tp 4 ranks = 17"),
        ("--max-capture-size 48 --max-num-seqs 512", 48, "max-capture-size 48"),
        ("--max-num-seqs 600 --cap 300", 300, "capped at 300 (--cap)"),
        ("--max-num-seqs 600", 512, "capped at 512 (the engine's limit per rank)"),
        ("--max-num-seqs 600 --cap 700", 600, "= 600"),
        ("--max-num-seqs 600", 512, "decode only: prefill takes another path"),
        ("--max-num-seqs 16 --max-num-batched-tokens 2048 --serving-tp 8", 256, "ranks = 256"),
        ("--max-num-batched-tokens 2048 --serving-tp 8", 256, "prefill through MC2"),
    ],
)
def test_max_bs_from_serving_flags(flags, max_bs, derivation, capsys):
    sizes = ["--product", "A3", "--hidden", "7168", "--topk", "8", "--ep", "16", "--experts", "256"]
    assert run(*sizes, *flags.split()) == (0 if max_bs < 20 else 1)  # 200 MB are there
    assert derivation in " ".join(capsys.readouterr().out.split())
    found = report(capsys, *sizes, *flags.split())[1]
    same = report(capsys, *sizes, "--max-bs", max_bs)[1]
    assert found == same


def test_our_own_kernels(capsys):
    code, found = report(capsys, *SEED, "--implementation", "ascend_moe")
    assert code == 0
    assert found["required_mb"] == 15
    assert list(found) == JSON_KEYS
    of_servers = ("--implementation", "ascend_moe", "--product", "A2", "--contract", "cann-9.1")
    for algorithm in ("fullmesh", "hierarchy"):
        code, found = report(capsys, *SEED, *of_servers, "--algorithm", algorithm)
        assert found["algorithm"] == algorithm
        assert found["formula"].startswith("256 * 2^10 + ")


def test_prefill_through_mc2_as_a_nightly_configuration_of_vllm_ascend_sizes_it(capsys):
    words = [
        "--product",
        "A3",
        "--hidden",
        "6144",
        "--topk",
        "8",
        "--experts",
        "256",
        "--ep",
        "16",
        "--serving-tp",
        "16",
        "--max-num-seqs",
        "24",
    ]
    assert report(capsys, *words, "--have", "1800")[1]["required_mb"] < 100
    code, found = report(capsys, *words, "--max-num-batched-tokens", "4096", "--have", "1800")
    assert (code, found["required_mb"]) == (0, 1648)


def test_dispatch_ffn_combine(capsys):
    words = [
        "--op",
        "dispatch_ffn_combine",
        "--max-bs",
        "512",
        "--hidden",
        "7168",
        "--topk",
        "8",
        "--have",
        "94",
    ]
    code, found = report(capsys, *words)
    # 512 * 7168 * 8 * 3 + 10 * 2^20 = 98566144 = 94 MB exactly
    assert (code, found["required_bytes"], found["required_mb"]) == (0, 98566144, 94)
    assert "vllm-ascend 182b75ea84" in found["contract"]
    assert found["algorithm"] == "dispatch_ffn_combine"
    run(*words)
    said = capsys.readouterr().out
    assert "dispatch_ffn_combine_tiling.cpp" in said
    assert "not dispatch_v2 or combine_v2" in said
    assert run(*words, "--max-bs", "513") == 2
    assert "takes max-bs up to 512" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        # counts 16 * 2176 * 4, rows 2 * (256 * 8 * 2 * 7168), flags 16 * 512, 10 MB
        ("A3", 139264 + 58720256 + 8192 + 10485760),
        # received 256 * 16 * 8 rows beside those sent, flags for 128 experts of each rank
        ("A2", 139264 + (32768 + 2048) * 14336 + 8192 + 16 * 129 * 64 + 10485760),
    ],
)
def test_mega_moe(product, expected, capsys):
    words = [
        "--op",
        "mega_moe",
        "--max-bs",
        "256",
        "--hidden",
        "7168",
        "--topk",
        "8",
        "--experts",
        "256",
        "--ep",
        "16",
    ]
    _, found = report(capsys, *words, "--product", product)
    assert found["required_bytes"] == expected
    assert "ops-transformer 3a280bcc3" in found["contract"]
    for change in (
        ["--hidden", "7000"],
        ["--ep", "24"],
        ["--max-bs", "4097"],
        ["--experts", "100"],
    ):
        assert run(*words, *change) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
