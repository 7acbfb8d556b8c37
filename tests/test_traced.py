"""Calls inside torch.compile and torch.export that are not on the CPU; with meta tensors, so no device is needed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import ascend_moe
from ascend_moe import ConstraintError, gate, traced
from ascend_moe.contract.errors import ConstraintWarning, PeerError
from ascend_moe.contract.layers import Layers

GROUP = {"group_ep": "traced", "ep_world_size": 2, "ep_rank_id": 0, "moe_expert_num": 4}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing traced, no call remembered, before and afterwards."""
    monkeypatch.setattr(gate, "SEEN", Layers())
    torch._dynamo.reset()
    gate.forget()
    yield
    torch._dynamo.reset()
    gate.forget()


def _layer(x: Any, ids: Any, weights: Any, **combine: Any) -> Any:
    rows, _, assist, _, counts, _, _ = ascend_moe.npu_moe_distribute_dispatch_v2(x, ids, **GROUP)
    return ascend_moe.npu_moe_distribute_combine_v2(
        rows * 2, ids, assist, counts, weights, **GROUP, **combine
    )


def _inputs(*, bs: int = 8, hidden: int = 1024, device: str = "meta") -> tuple[torch.Tensor, ...]:
    return (
        torch.empty(bs, hidden, dtype=torch.bfloat16, device=device),
        torch.zeros(bs, 2, dtype=torch.int32, device=device),
        torch.empty(bs, 2, device=device),
    )


def _compile(function: Callable[..., Any], **options: Any) -> tuple[Callable[..., Any], list[Any]]:
    """The compiled function, and a list in which each graph appears that torch makes of it."""
    graphs: list[Any] = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return torch.compile(function, backend=keep, **options), graphs


def _refusal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> ConstraintError:
    with pytest.raises(ConstraintError) as raised:
        function(*args, **kwargs)
    return raised.value


@pytest.mark.parametrize(
    ("dynamic", "fullgraph"), [(False, True), (True, True), (None, True), (None, False)]
)
def test_an_illegal_call_ends_while_it_is_traced(dynamic: bool | None, fullgraph: bool):
    compiled, graphs = _compile(_layer, dynamic=dynamic, fullgraph=fullgraph)
    error = _refusal(compiled, *_inputs(hidden=512))
    (violation,) = error.violations
    assert (violation.rule, violation.value) == ("X-25", 512)
    assert "X-25 error x: H is 512, allowed: 1024..8192" in str(error)
    assert "in _layer" in str(error)  # where in the caller's code, and nothing of ours
    assert "api.py" not in str(error)
    assert not graphs
    assert compiled(*_inputs()).shape == (8, 1024)  # a legal call goes on from there
    assert len(graphs) == 1


def test_combine_is_judged_with_the_sizes_that_symbols_stand_for():
    compiled, _ = _compile(_layer, dynamic=True, fullgraph=True)
    error = _refusal(compiled, *_inputs(), comm_quant_mode=1)
    assert [one.param for one in error.violations] == ["comm_quant_mode"]


def test_a_graph_serves_other_sizes_as_without_the_check():
    compiled, graphs = _compile(_layer, dynamic=True, fullgraph=True)
    for bs, hidden in ((8, 1024), (16, 1024), (33, 2048)):
        assert compiled(*_inputs(bs=bs, hidden=hidden)).shape == (bs, hidden)
    assert len(graphs) == 1
    assert compiled(*_inputs(hidden=512)).shape == (8, 512)  # not looked at: docs/graphs.md


def test_an_attribute_that_is_a_symbol():
    """torch makes it a constant of the graph, since the operator takes no symbol there."""

    def layer(experts: int, *given: Any) -> Any:
        return ascend_moe.npu_moe_distribute_dispatch_v2(
            given[0], given[1], **{**GROUP, "moe_expert_num": experts}
        )[0]

    compiled, _ = _compile(layer, dynamic=True, fullgraph=True)
    assert "X-10" in str(_refusal(compiled, 7, *_inputs()))
    assert compiled(6, *_inputs()).shape == (32, 1024)


@pytest.mark.parametrize("dynamic", [False, True])
def test_strides_are_read_from_fake_tensors(dynamic: bool):
    """The one rule that reads them is a warning, here an error."""

    def layer(scales: torch.Tensor, *given: Any) -> Any:
        return ascend_moe.npu_moe_distribute_dispatch_v2(
            given[0], given[1], scales=scales, quant_mode=2, **GROUP
        )[0]

    scales = torch.empty(4, 2048, device="meta")
    compiled, _ = _compile(layer, dynamic=dynamic, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConstraintWarning, match="X-44 warning scales: is not contiguous"):
            compiled(scales[:, :1024], *_inputs())
        assert compiled(scales.view(8, 1024)[:4], *_inputs()).dtype == torch.int8


def test_the_error_travels_between_processes():
    compiled, _ = _compile(_layer, fullgraph=True)
    error = _refusal(compiled, *_inputs(hidden=512))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ConstraintError
    assert again.violations == error.violations


@pytest.mark.parametrize(
    "error", [PeerError("rank 1 did not arrive", [1]), TypeError("an int"), ValueError("a level")]
)
def test_what_else_a_check_raises_keeps_its_kind(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(traced, "require_legal", refuse)
    compiled, _ = _compile(_layer, fullgraph=True)
    with pytest.raises(type(error), match=str(error)) as raised:
        compiled(*_inputs())
    assert getattr(raised.value, "ranks", None) == getattr(error, "ranks", None)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict: bool):
    class Layer(torch.nn.Module):
        def forward(self, x: Any, ids: Any, weights: Any) -> Any:
            return _layer(x, ids, weights)

    program = torch.export.export(Layer(), _inputs(), strict=strict)
    assert "npu_moe_distribute_combine_v2" in str(program.graph)
    assert "X-25" in str(_refusal(torch.export.export, Layer(), _inputs(hidden=512), strict=strict))


def test_cpu_tensors_are_left_to_the_kernel():
    """It checks when the graph runs, and tells the peers then."""
    compiled, graphs = _compile(_layer, fullgraph=True)
    assert "X-25" in str(_refusal(compiled, *_inputs(hidden=512, device="cpu")))
    assert len(graphs) == 1
