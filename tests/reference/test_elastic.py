"""elastic_info in the reference: against a plain second opinion that reads the tables, and against a smaller world."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ascend_moe.contract.elastic import Elastic
from ascend_moe.contract.errors import ConstraintError
from ascend_moe.contract.shapes import World
from ascend_moe.reference import combine_world, dispatch_world

EP, LOCAL, TOPK, HIDDEN = 6, 2, 3, 1024


def words_of(old_ranks: tuple[int, ...], shared: int, experts: int) -> torch.Tensor:
    return torch.tensor(Elastic(EP, shared, experts, old_ranks).words(), dtype=torch.int32)


def make_calls(
    old_ranks: tuple[int, ...],
    *,
    shared_ranks: int = 0,
    shared: int = 1,
    left_shared: int = 0,
    **more: Any,
) -> list[dict[str, Any]]:
    """The calls of the ranks that are left, by old rank; each token is a number of its own in all columns."""
    generator = torch.Generator().manual_seed(len(old_ranks))
    experts = LOCAL * (len(old_ranks) - left_shared)
    info = words_of(old_ranks, left_shared, experts)
    calls = []
    for rank in sorted(old_ranks):
        bs = 2 + rank % 2
        value = 100.0 * (rank + 1) + torch.arange(bs)
        calls.append(
            {
                "x": value[:, None].expand(bs, HIDDEN).bfloat16(),
                "expert_ids": torch.rand(bs, experts, generator=generator)
                .argsort(1)[:, :TOPK]
                .int(),
                "ep_world_size": EP,
                "ep_rank_id": rank,
                "moe_expert_num": LOCAL * (EP - shared_ranks),
                "shared_expert_num": shared,
                "shared_expert_rank_num": shared_ranks,
                "global_bs": 3 * EP,
                "elastic_info": info,
                **more,
            }
        )
    return calls


CASES = {
    "one is gone": ((0, 1, 2, 4, 5), {}),
    "other order": ((4, 0, 5, 2), {}),
    "shared ranks": ((0, 2, 3, 5), {"shared_ranks": 2, "left_shared": 1}),
    "a MoE rank takes over": ((3, 1, 4), {"shared_ranks": 2, "left_shared": 1}),
    "all are left": (tuple(range(EP)), {}),
}


def expected_rows(calls: list[dict[str, Any]], receiver: int) -> list[tuple[int, int, int, float]]:
    """(new source rank, token, slot, value) of the rows of an old rank, by looking every pair up in the tables."""
    words = calls[0]["elastic_info"].tolist()
    _, ranks, shared_ranks, _ = words[:4]
    new_of_old, old_of_new = words[4 : 4 + EP], words[4 + EP :]
    found = []
    for new in range(ranks):
        call = next(one for one in calls if one["ep_rank_id"] == old_of_new[new])
        for token, chosen in enumerate(call["expert_ids"].tolist()):
            value = float(call["x"][token, 0])
            for slot, expert in enumerate(chosen):
                host = old_of_new[shared_ranks + expert // LOCAL]
                if host == receiver:
                    found.append((expert % LOCAL, new, token, slot, value))
            if shared_ranks and old_of_new[new % shared_ranks] == receiver:
                found.append((0, new, token, TOPK, value))
    assert new_of_old[receiver] >= 0
    return [row[1:] for row in sorted(found)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_counts_and_handles(case: str):
    old_ranks, how = CASES[case]
    calls = make_calls(old_ranks, **how)
    outputs = dispatch_world(calls)
    room = World.of_call(calls[0])
    slots = len(old_ranks)
    for call, output in zip(calls, outputs, strict=True):
        rows = expected_rows(calls, call["ep_rank_id"])
        n = len(rows)
        assert output.expand_x[:n, 7].tolist() == [row[3] for row in rows]
        assert output.assist_info_for_combine[: 3 * n].tolist() == [
            w for row in rows for w in row[:3]
        ]
        own = call["elastic_info"][4 + call["ep_rank_id"]].item()
        local = 1 if own < call["elastic_info"][2] else LOCAL
        assert output.ep_recv_counts[local * slots - 1] == n
        assert not output.ep_recv_counts[local * slots :].any()
        assert output.expert_token_nums[:local].sum() == n
        # Room for what any rank may become, by the old numbers.
        most = max(room.rows_received_at_most(rank, max_bs=3, topk=TOPK) for rank in (0, EP - 1))
        assert output.expand_x.shape == (most, HIDDEN)
        assert output.ep_recv_counts.shape == (EP * LOCAL,)
        assert output.expert_token_nums.shape == (LOCAL,)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tokens_come_home(case: str):
    old_ranks, how = CASES[case]
    calls = make_calls(old_ranks, **how)
    homeward = [
        {name: call[name] for name in call if name not in ("x",)}
        | {
            "expand_x": output.expand_x,
            "assist_info_for_combine": output.assist_info_for_combine,
            "ep_send_counts": output.ep_recv_counts,
            "expert_scales": torch.full((len(call["expert_ids"]), TOPK), 0.5),
        }
        for call, output in zip(calls, dispatch_world(calls), strict=True)
    ]
    times = 0.5 * TOPK + (how.get("left_shared", 0) > 0)
    for call, y in zip(calls, combine_world(homeward), strict=True):
        torch.testing.assert_close(y, (call["x"].float() * times).bfloat16())


def test_smooth_scales_follow_the_new_expert_ids():
    old_ranks, how = CASES["shared ranks"]
    scales = torch.rand(1 + LOCAL * 4, HIDDEN)
    calls = make_calls(old_ranks, **how, quant_mode=2, scales=scales)
    smaller = [Elastic.read(call["elastic_info"].tolist(), EP).reduced(call) for call in calls]
    assert len(smaller[0]["scales"]) == 1 + LOCAL * 3
    for output, wanted in zip(dispatch_world(calls), dispatch_world(smaller), strict=True):
        n = int(wanted.ep_recv_counts[-1])
        assert output.expand_x[:n].equal(wanted.expand_x[:n])
        assert output.dynamic_scales[:n].equal(wanted.dynamic_scales[:n])


def test_word_0_switches_it_off_and_leaves_the_sizes():
    calls = make_calls(tuple(range(EP)), shared_ranks=2, left_shared=2)
    off = torch.full((4 + 2 * EP,), -7, dtype=torch.int32)
    off[0] = 0
    outputs = dispatch_world([call | {"elastic_info": off} for call in calls])
    for output, wanted in zip(
        outputs, dispatch_world([call | {"elastic_info": None} for call in calls]), strict=True
    ):
        n = int(wanted.expert_token_nums.sum())
        assert output.expand_x[:n].equal(wanted.expand_x[:n])
        assert len(output.expand_x) == len(outputs[0].expand_x)


def changed(info: torch.Tensor, word: int, value: int) -> torch.Tensor:
    info = info.clone()
    info[word] = value
    return info


@pytest.mark.parametrize(
    ("word", "value", "rule"),
    [
        (0, 2, "X-47"),
        (1, 0, "X-47"),
        (1, EP + 1, "X-47"),
        (2, 1, "X-47"),
        (2, 5, "X-47"),
        (3, 9, "X-47"),
        (4, -1, "X-48"),
        (4 + 3, 2, "X-48"),
        (4 + 5, 0, "X-48"),
        (4 + EP + 2, 3, "X-48"),
        (4 + EP + 2, EP, "X-48"),
        (4 + EP + 2, -1, "X-48"),
        (4 + EP + 5, 3, "X-48"),
    ],
)
def test_wrong_words_are_named(word: int, value: int, rule: str):
    calls = make_calls((0, 1, 2, 4, 5))
    wrong = [call | {"elastic_info": changed(call["elastic_info"], word, value)} for call in calls]
    with pytest.raises(ConstraintError) as caught:
        dispatch_world(wrong)
    assert [violation.rule for violation in caught.value.violations] == [rule]
    assert str(caught.value.violations[0].message).startswith("word ")


def test_who_is_gone_who_disagrees_and_ids_of_experts_that_are_gone():
    calls = make_calls((0, 1, 2, 4, 5))
    with pytest.raises(ConstraintError, match="X-49"):
        dispatch_world([calls[0] | {"ep_rank_id": 3}, *calls[1:]])
    other = words_of((0, 1, 2, 3, 4), 0, 10)
    with pytest.raises(ConstraintError, match=r"E-15.*disagree"):
        dispatch_world([*calls[:3], calls[3] | {"elastic_info": other}, calls[4]])
    ids = calls[0]["expert_ids"].clone()
    ids[0, 0] = 10
    with pytest.raises(ConstraintError, match=r"X-36 .* 10.*0\.\.9"):
        dispatch_world([calls[0] | {"expert_ids": ids}, *calls[1:]])
    with pytest.raises(ValueError, match="needs the calls of the ranks"):
        dispatch_world(calls[:-1])


def test_nobody_useful_left():
    world = World(EP, LOCAL * 2, 2, 4)
    assert Elastic.of_survivors(world, [4]) == Elastic(EP, 4, LOCAL, (0, 1, 2, 3, 5))
    with pytest.raises(ValueError, match="no rank with MoE experts"):
        Elastic.of_survivors(world, [4, 5])
    with pytest.raises(ValueError, match="3 ranks of shared experts are left"):
        Elastic.of_survivors(world, [0])
    with pytest.raises(ValueError, match="0 ranks of shared experts are left"):
        Elastic.of_survivors(world, [0, 1, 2, 3])
