"""The rules that read contents, against a plain second opinion over every small case."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import Setting, example_call

MOE = 6


def found(ids, mask, contract):
    example = example_call(
        Setting("dispatch", "A3", contract, "fullmesh"),
        {"BS": len(ids), "K": len(ids[0]), "ep_world_size": 2, "moe_expert_num": MOE},
    )
    args = example.args | {"expert_ids": torch.tensor(ids, dtype=torch.int32)}
    if mask is not None:
        args["x_active_mask"] = torch.tensor(mask, dtype=torch.bool)
    everything = violations(
        "dispatch", args, product="A3", contract=contract, env=example.env, values=True
    )
    return {violation.rule for violation in everything}


def expected(ids, mask, contract):
    """What the documents say, token by token."""
    rules = set()
    if mask is None:
        active = [[True] * len(row) for row in ids]
    elif isinstance(mask[0], bool):
        count = sum(mask)
        if mask != [True] * count + [False] * (len(mask) - count):
            rules.add("X-34")
        active = [[token < count] * len(row) for token, row in enumerate(ids)]
    else:
        active = mask
        seen = [any(row) for row in mask]
        if contract == "cann-8.2" and sorted(seen, reverse=True) != seen:
            rules.add("X-34")
    for row, flags in zip(ids, active, strict=True):
        used = [expert for expert, flag in zip(row, flags, strict=True) if flag]
        if any(not 0 <= expert < MOE for expert in used):
            rules.add("X-36")
        if len(set(used)) < len(used):
            rules.add("X-37")
    return rules


@st.composite
def cases(draw):
    batch, topk = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    expert = st.one_of(st.integers(0, MOE - 1), st.sampled_from([-1, -2, -3, MOE, 2**31 - 1]))
    row = st.one_of(
        st.permutations(range(MOE)).map(lambda order: list(order[:topk])),
        st.lists(expert, min_size=topk, max_size=topk),
    )
    ids = draw(st.lists(row, min_size=batch, max_size=batch))
    flags = st.lists(st.booleans(), min_size=batch, max_size=batch)
    pairs = st.lists(
        st.lists(st.booleans(), min_size=topk, max_size=topk), min_size=batch, max_size=batch
    )
    return ids, draw(st.one_of(st.none(), flags, pairs))


@settings(max_examples=500, deadline=None)
@given(case=cases(), contract=st.sampled_from(["cann-8.2", "cann-9.1"]))
def test_contents(case, contract):
    ids, mask = case
    assert found(ids, mask, contract) == expected(ids, mask, contract)


def test_messages_name_token_and_expert():
    example = example_call(Setting("dispatch", "A3", "cann-8.2", "fullmesh"), {"BS": 2, "K": 3})
    args = example.args | {
        "expert_ids": torch.tensor([[0, 1, 2], [5, 32, 5]], dtype=torch.int32),
        "x_active_mask": torch.tensor([True, True]),
    }
    text = "\n".join(
        map(
            str,
            violations("dispatch", args, product="A3", contract="cann-8.2", values=True),
        )
    )
    assert "X-36 error expert_ids: holds 32, allowed: 0..31" in text
    assert "X-37 error expert_ids: token 1 names expert 5 twice" in text


def test_special_experts_widen_the_range():
    example = example_call(
        Setting("dispatch", "A3", "cann-9.1", "fullmesh"), {"zero_expert_num": 2, "K": 2}
    )
    args = example.args | {"expert_ids": torch.tensor([[32, 33]] * 8, dtype=torch.int32)}
    options = {"product": "A3", "contract": "cann-9.1", "env": example.env, "values": True}
    assert violations("dispatch", args, **options) == []
    args["expert_ids"][3, 1] = 34
    assert [v.rule for v in violations("dispatch", args, **options)] == ["X-36"]


def test_contents_are_not_read_without_being_asked():
    example = example_call(Setting("dispatch", "A3", "cann-8.2", "fullmesh"), {})
    args = example.args | {"expert_ids": torch.full((8, 8), -1, dtype=torch.int32)}
    options = {"product": "A3", "contract": "cann-8.2", "env": example.env}
    assert violations("dispatch", args, **options) == []
    meta = args | {"expert_ids": torch.empty(8, 8, dtype=torch.int32, device="meta")}
    assert violations("dispatch", meta, **options, values=True) == []
