"""Behind the stock operator names: FakeTensor, torch.compile, opcheck, schema, strides, positional arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import worlds
from random_calls import Plan, combine_calls, dispatch_calls
from small_calls import same
from torch._subclasses.fake_tensor import FakeTensorMode

import ascend_moe
from ascend_moe.contract.signature import OPERATORS, PARAMETERS, by_name
from ascend_moe.reference import combine_world, dispatch_world

ascend_moe.register()

PLAN = Plan(
    ep=2,
    local_experts=3,
    batch_sizes=(5, 5),
    hidden=1024,
    topk=2,
    quant_mode=2,
    smooth=True,
    seed=11,
)


@pytest.fixture(scope="module")
def world() -> Iterator[worlds.World]:
    with worlds.world(2) as opened:
        yield opened


CALLS = dispatch_calls(PLAN)
WANTED = dispatch_world(CALLS)
BACK = combine_calls(PLAN, WANTED, CALLS)
COMBINED = combine_world(BACK)


def _calls(rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Dispatch and combine of one rank, with group names."""
    return worlds.with_groups(rank, CALLS[rank]), worlds.with_groups(rank, BACK[rank])


@pytest.mark.parametrize("op", OPERATORS)
def test_python_signature_is_the_schema(op: str):
    name = f"npu_moe_distribute_{op}_v2"
    operator = getattr(torch.ops.npu, name).default
    ours = inspect.signature(getattr(ascend_moe, name)).parameters
    assert [argument.name for argument in operator._schema.arguments] == list(ours)
    for argument, parameter in zip(operator._schema.arguments, PARAMETERS[op], strict=True):
        mine = ours[argument.name]
        assert argument.kwarg_only == (mine.kind is inspect.Parameter.KEYWORD_ONLY), argument.name
        if argument.has_default_value():
            assert mine.default == argument.default_value == parameter.default, argument.name
        else:
            assert mine.default is inspect.Parameter.empty, argument.name


@pytest.mark.parametrize("op", OPERATORS)
def test_every_argument_goes_on_under_its_own_name(op: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ascend_moe.api, "_run", by_name)
    given = {parameter.name: object() for parameter in PARAMETERS[op]}
    assert getattr(ascend_moe, f"npu_moe_distribute_{op}_v2")(**given) == given


def _fake(rank: int) -> Any:
    results = []
    for op, call in zip(OPERATORS, _calls(rank), strict=True):
        operator = getattr(torch.ops.npu, f"npu_moe_distribute_{op}_v2")
        with FakeTensorMode() as mode:
            fake = {
                name: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
                for name, value in call.items()
            }
            outputs = operator(**fake)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        results.append([(tuple(one.shape), one.dtype) for one in outputs])
    return results


def test_fake_tensors_have_the_real_shapes(world: worlds.World):
    for rank, (dispatched, combined) in enumerate(world.run(_fake)):
        assert dispatched == [(tuple(one.shape), one.dtype) for one in WANTED[rank]]
        assert combined == [(tuple(COMBINED[rank].shape), COMBINED[rank].dtype)]


def _compiled(rank: int, through: str) -> Any:
    where = ascend_moe if through == "ascend_moe" else torch.ops.npu
    functions = [getattr(where, f"npu_moe_distribute_{op}_v2") for op in OPERATORS]
    dispatch_call, combine_call = _calls(rank)
    kept = {name: combine_call[name] for name in ("expert_scales", "expand_x")}

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = functions[0](**{**dispatch_call, "x": x})
        handle = {"assist_info_for_combine": outputs[2], "ep_send_counts": outputs[4]}
        return *outputs, functions[1](**{**combine_call, **handle, **kept})

    return layer(dispatch_call["x"])


@pytest.mark.parametrize("through", ["ascend_moe", "torch.ops.npu"])
def test_compile_fullgraph(world: worlds.World, through: str):
    for rank, outputs in enumerate(world.run(_compiled, through)):
        assert same(outputs, (*WANTED[rank], COMBINED[rank]))


def _compiled_illegal(rank: int) -> Any:
    call, _ = _calls(rank)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer(x: torch.Tensor) -> torch.Tensor:
        return ascend_moe.npu_moe_distribute_dispatch_v2(**{**call, "x": x, "quant_mode": 1})[0]

    return layer(call["x"])


def test_an_illegal_call_inside_compile(world: worlds.World):
    for outcome in world.outcomes(_compiled_illegal):
        assert isinstance(outcome, ascend_moe.ConstraintError)
        assert outcome.violations[0].rule == "D-12"


def _opcheck(rank: int, op: str) -> Any:
    call = _calls(rank)[OPERATORS.index(op)]
    operator = getattr(torch.ops.npu, f"npu_moe_distribute_{op}_v2").default
    required = [p.name for p in PARAMETERS[op] if p.required]
    args = tuple(call[name] for name in required)
    kwargs = {name: value for name, value in call.items() if name not in required}
    return torch.library.opcheck(operator, args, kwargs)


@pytest.mark.parametrize("op", OPERATORS)
def test_opcheck(world: worlds.World, op: str):
    for results in world.run(_opcheck, op):
        assert set(results.values()) == {"SUCCESS"}
        assert len(results) >= 4


def _positional(rank: int) -> torch.Tensor:
    _, call = _calls(rank)
    required = [p.name for p in PARAMETERS["combine"] if p.required]
    assert len(required) == 9
    rest = {name: value for name, value in call.items() if name not in required}
    return ascend_moe.npu_moe_distribute_combine_v2(*(call[name] for name in required), **rest)


def test_combine_takes_its_first_nine_arguments_by_position(world: worlds.World):
    assert same(world.run(_positional), COMBINED)


def test_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="topk"):
        ascend_moe.npu_moe_distribute_dispatch_v2(**CALLS[0], group_ep="g", topk=2)


def _packed_calls() -> list[dict[str, Any]]:
    """int32 x on A2: the smallest legal H in words, bits and scales as they are."""
    generator = torch.Generator().manual_seed(5)
    return [
        {
            "x": torch.randint(
                -(2**31), 2**31, (5, 64), generator=generator, dtype=torch.int64
            ).int(),
            "expert_ids": torch.rand(5, 4, generator=generator).argsort(dim=1)[:, :3].int(),
            "scales": torch.rand(5, generator=generator),
            "ep_world_size": 2,
            "ep_rank_id": rank,
            "moe_expert_num": 4,
        }
        for rank in range(2)
    ]


def test_packed_int4_equals_the_oracle(world: worlds.World):
    wanted = dispatch_world(_packed_calls(), product="A2", contract="cann-9.1")
    variables = {"ASCEND_MOE_PRODUCT": "A2", "ASCEND_MOE_CONTRACT": "cann-9.1"}
    outputs = world.run(worlds.under, variables, worlds.dispatch, _packed_calls())
    for output, oracle in zip(outputs, wanted, strict=True):
        assert output[1].any()
        assert same(output, oracle)
