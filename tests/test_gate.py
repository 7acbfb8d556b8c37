"""What both functions do first: raise, warn, remember, dump."""

import json
import time

import pytest
import torch

from ascend_moe import ConstraintError, gate
from ascend_moe.cli import main
from ascend_moe.contract.errors import ConstraintWarning
from ascend_moe.contract.signature import with_defaults


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name in gate.RULE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    gate.forget()
    yield
    gate.forget()


def dispatch(device="meta", **changes):
    given = {
        "x": torch.zeros(8, 1024, dtype=torch.bfloat16, device=device),
        "expert_ids": torch.arange(8, dtype=torch.int32, device=device).repeat(8, 1),
        "group_ep": "ep",
        "ep_world_size": 16,
        "ep_rank_id": 0,
        "moe_expert_num": 32,
    }
    return with_defaults("dispatch", given | changes)


def test_legal_calls_are_remembered_and_illegal_ones_are_not(monkeypatch):
    checked = []
    real = gate.violations

    def counting(*args, **options):
        checked.append(args)
        return real(*args, **options)

    monkeypatch.setattr(gate, "violations", counting)
    for _ in range(3):
        gate.require_legal("dispatch", dispatch())
    assert len(checked) == 1
    for _ in range(2):
        with pytest.raises(ConstraintError, match="X-10"):
            gate.require_legal("dispatch", dispatch(moe_expert_num=33))
    assert len(checked) >= 3


@pytest.mark.parametrize(
    "change",
    [
        {"quant_mode": 3},
        {"ep_rank_id": 16},
        {"x": torch.zeros(8, 1024, device="meta")},
        {"x": torch.zeros(8, 512, dtype=torch.bfloat16, device="meta")},
        {"expert_scales": torch.zeros(8, 8, device="meta", requires_grad=True)},
        {"group_ep": ""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_remembered_call_does_not_cover_another(change):
    gate.require_legal("dispatch", dispatch())
    with pytest.raises(ConstraintError):
        gate.require_legal("dispatch", dispatch(**change))


def test_variables_are_read_again(monkeypatch):
    big = dispatch(
        x=torch.zeros(64, 7168, dtype=torch.bfloat16, device="meta"),
        expert_ids=torch.zeros(64, 8, dtype=torch.int32, device="meta"),
        moe_expert_num=256,
    )
    with pytest.raises(ConstraintError, match="NEEDED_HCCL_BUFFSIZE = 478 MB"):
        gate.require_legal("dispatch", big)
    monkeypatch.setenv("HCCL_BUFFSIZE", "478")
    gate.require_legal("dispatch", big)
    monkeypatch.setenv("HCCL_BUFFSIZE", "477")
    with pytest.raises(ConstraintError, match="X-39"):
        gate.require_legal("dispatch", big)
    monkeypatch.setenv("HCCL_BUFFSIZE", "478")
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A2")
    monkeypatch.setenv("ASCEND_MOE_CONTRACT", "cann-9.1")
    gate.require_legal("dispatch", big)


@pytest.mark.parametrize(
    ("ours", "ranks", "comm_alg", "warned"),
    [
        (True, 8, "", 0),
        (False, 8, "", 1),
        (True, 16, "", 0),
        (False, 16, "", 1),
        (True, 16, "hierarchy", 1),
    ],
)
def test_whose_window_on_a2(monkeypatch, recwarn, ours, ranks, comm_alg, warned):
    """That of our kernels in full mesh, where torch_npu finds them."""
    monkeypatch.setattr(gate, "takes_ours", lambda: ours)
    monkeypatch.setenv("ASCEND_MOE_PRODUCT", "A2")
    monkeypatch.setenv("ASCEND_MOE_CONTRACT", "cann-9.1")
    monkeypatch.setenv("HCCL_BUFFSIZE", {8: "200", 16: "226"}[ranks])  # of 16 ranks: 225 or 228
    batch = 1024 // ranks
    call = dispatch(
        x=torch.zeros(batch, 7168, dtype=torch.bfloat16, device="meta"),
        expert_ids=torch.zeros(batch, 8, dtype=torch.int32, device="meta"),
        comm_alg=comm_alg,
        expert_scales=torch.zeros(batch, 8, device="meta"),
        ep_world_size=ranks,
        moe_expert_num=256,
    )
    gate.require_legal("dispatch", call)
    assert sum("X-39" in str(warning.message) for warning in recwarn) == warned


def test_the_groups_own_window(monkeypatch):
    monkeypatch.setenv("HCCL_BUFFSIZE", "20000")
    gate.require_legal("dispatch", dispatch(), window_mb=200)
    with pytest.raises(ConstraintError, match="X-39"):
        gate.require_legal("dispatch", dispatch(), window_mb=1)


def test_contents_of_cpu_tensors_are_read_every_time(monkeypatch):
    call = dispatch("cpu")
    gate.require_legal("dispatch", call)
    call["expert_ids"][2, 3] = 32
    with pytest.raises(ConstraintError, match="X-36"):
        gate.require_legal("dispatch", call)
    monkeypatch.setenv("ASCEND_MOE_CHECK", "fast")
    gate.require_legal("dispatch", call)


def test_off_is_off_and_other_words_are_refused(monkeypatch):
    monkeypatch.setenv("ASCEND_MOE_CHECK", "off")
    gate.require_legal("dispatch", dispatch(quant_mode=3))
    monkeypatch.setenv("ASCEND_MOE_CHECK", "on")
    with pytest.raises(ValueError, match="ASCEND_MOE_CHECK is 'on', allowed: full, fast, off"):
        gate.require_legal("dispatch", dispatch())


def test_warnings_are_warned_once(monkeypatch, recwarn):
    monkeypatch.setenv("HCCL_BUFFSIZE", "1048576")
    gate.require_legal("dispatch", dispatch())
    gate.require_legal("dispatch", dispatch())
    assert [warning.category for warning in recwarn] == [ConstraintWarning]
    assert "MB, not KB or bytes?" in str(recwarn[0].message)


def test_a_buffer_size_that_hccl_refuses_is_an_error(monkeypatch):
    monkeypatch.setenv("HCCL_BUFFSIZE", "512MB")
    with pytest.raises(ConstraintError, match="E-01 error HCCL_BUFFSIZE: HCCL refuses '512MB'"):
        gate.require_legal("dispatch", dispatch())


def test_gradients_only_matter_while_they_are_recorded():
    call = dispatch(expert_scales=torch.zeros(8, 8, device="meta", requires_grad=True))
    with torch.no_grad():
        gate.require_legal("dispatch", call)


def test_dump_is_a_file_for_check(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ASCEND_MOE_DUMP", str(tmp_path / "dumps"))
    monkeypatch.setenv("HCCL_BUFFSIZE", "300")
    with pytest.raises(ConstraintError) as caught:
        gate.require_legal("dispatch", dispatch(quant_mode=3))
    (file,) = (tmp_path / "dumps").iterdir()
    described = json.loads(file.read_text())
    assert described["env"] == {"HCCL_BUFFSIZE": "300"}
    assert described["x"] == {"shape": [8, 1024], "dtype": "bfloat16"}
    monkeypatch.delenv("HCCL_BUFFSIZE")
    assert main(["check", str(file)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [str(violation) for violation in caught.value.violations]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(gate, "REMEMBERED_MAX", 4)
    for rank in range(10):
        gate.require_legal("dispatch", dispatch(ep_rank_id=rank))
    assert len(gate._legal) <= 4


def test_checks_are_cheap():
    """Twice the target of 50 and 8 us, and the best of many rounds: other tests share the machine."""
    call = dispatch()
    first, again = [], []
    for _ in range(500):
        gate.forget()
        start = time.perf_counter_ns()
        gate.require_legal("dispatch", call)
        middle = time.perf_counter_ns()
        gate.require_legal("dispatch", call)
        first.append(middle - start)
        again.append(time.perf_counter_ns() - middle)
    assert min(first) < 100_000
    assert min(again) < 16_000
