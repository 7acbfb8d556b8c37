"""X-xx, the shared experts and the ranks that hold them."""

from __future__ import annotations

from ascend_moe.contract import limits as lim
from ascend_moe.contract.call import Call
from ascend_moe.contract.limits import MESHES
from ascend_moe.contract.rules.rule import (
    ACLNN_DOC,
    DOCS,
    TILING,
    WRAPPER,
    Breach,
    Finding,
    Rule,
)


def _shared_expert_count(call: Call) -> Finding:
    if not 0 <= call.shared_expert_num <= lim.SHARED_EXPERTS_MAX:
        return Breach(call.shared_expert_num, f"0..{lim.SHARED_EXPERTS_MAX}")
    return None


def _shared_rank_count(call: Call) -> Finding:
    ranks = call.shared_expert_rank_num
    if not call.path_limits.shared_ranks and ranks:
        return Breach(
            ranks, 0, message="is {value}; hierarchy has no shared-expert ranks: use {limit}"
        )
    if not 0 <= ranks < max(call.ep_world_size, 1):
        return Breach(ranks, f"0..{call.ep_world_size - 1}")
    return None


def _shared_both_or_none(call: Call) -> Finding:
    experts, ranks = call.shared_expert_num, call.shared_expert_rank_num
    if experts == 0 and ranks > 0:
        return Breach(experts, f">= 1, because shared_expert_rank_num is {ranks}")
    if 1 < experts <= lim.SHARED_EXPERTS_MAX and ranks == 0:
        return Breach(experts, "0 or 1, because shared_expert_rank_num is 0")
    return None


def _shared_ranks_divide(call: Call) -> Finding:
    experts, ranks = call.shared_expert_num, call.shared_expert_rank_num
    if experts > 0 and ranks > 0 and ranks % experts:
        return Breach(ranks, f"a multiple of shared_expert_num = {experts}")
    return None


def _no_shared_on_a2(call: Call) -> Finding:
    found = []
    if call.shared_expert_num not in (0, 1):
        found.append(Breach(call.shared_expert_num, "0 or 1", "shared_expert_num"))
    if call.shared_expert_rank_num != 0:
        found.append(Breach(call.shared_expert_rank_num, 0, "shared_expert_rank_num"))
    return found or None


SHARED_EXPERT_RULES: tuple[Rule, ...] = (
    Rule(
        id="X-17",
        param="shared_expert_num",
        statement=f"On A3 shared_expert_num is in [0, {lim.SHARED_EXPERTS_MAX}].",
        source=f"{DOCS}; {TILING}",
        check=_shared_expert_count,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_num": 5, "shared_expert_rank_num": 5, "moe_expert_num": 22},
        only={"path": MESHES},
        holds={"shared_expert_num": 4, "shared_expert_rank_num": 4, "moe_expert_num": 24},
    ),
    Rule(
        id="X-18",
        param="shared_expert_rank_num",
        statement="On A3 shared_expert_rank_num is in [0, ep_world_size); 0 in hierarchy.",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        check=_shared_rank_count,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_num": 1, "shared_expert_rank_num": 16},
        holds={"shared_expert_num": 1, "shared_expert_rank_num": 0},
    ),
    Rule(
        id="X-19",
        param="shared_expert_num",
        statement=(
            "shared_expert_num and shared_expert_rank_num are both zero or both positive; (1, "
            "0), the default, also means no shared expert."
        ),
        source=f"{TILING}; {WRAPPER}",
        message="is {value}, needed: {limit}",
        check=_shared_both_or_none,
        products=("A3",),
        safety=True,
        breaks={"shared_expert_num": 2, "shared_expert_rank_num": 0},
        holds={"shared_expert_num": 1, "shared_expert_rank_num": 0},
        note=(
            "The documents only say that shared_expert_rank_num = 0 means no shared expert; "
            "wrapper and tiling refuse."
        ),
    ),
    Rule(
        id="X-20",
        param="shared_expert_rank_num",
        statement="shared_expert_rank_num is a multiple of shared_expert_num.",
        source=f"{DOCS}; {TILING}; {WRAPPER}",
        message="is {value}, needed: {limit}",
        check=_shared_ranks_divide,
        products=("A3",),
        paths=MESHES,
        safety=True,
        breaks={"shared_expert_num": 2, "shared_expert_rank_num": 3, "moe_expert_num": 26},
        holds={"shared_expert_num": 2, "shared_expert_rank_num": 2, "moe_expert_num": 28},
    ),
    Rule(
        id="X-21",
        param="shared_expert_rank_num",
        statement=(
            "A2 has no shared experts: shared_expert_num is 0 or 1 and shared_expert_rank_num is 0."
        ),
        source=f"{DOCS}; {ACLNN_DOC}",
        check=_no_shared_on_a2,
        products=("A2",),
        safety=True,
        breaks={"shared_expert_rank_num": 2},
        holds={"shared_expert_num": 0, "shared_expert_rank_num": 0},
    ),
)
