"""Why dispatch and combine fail at run time: suspects that an error code or a line points at.

Said only where the log shows that one of these two operators failed, or does not say which operator
did. What else stands in the log moves a suspect to the front: see `Cause.hints`.
"""

from __future__ import annotations

from dataclasses import dataclass

SAME_EVERYWHERE = (
    "Compare on all ranks: ep_world_size, global_bs, HCCL_BUFFSIZE, driver version "
    "(`ascend-moe doctor --json` on each node, then `ascend-moe doctor --compare`)."
)


@dataclass(frozen=True)
class Cause:
    """One suspect.

    Attributes:
        says: half a sentence: what may be wrong.
        remedy: what to do about it.
        rules: ids of the rules that are broken then.
        hints: kinds of facts (facts.py) that make it likelier.
        needs: kinds of facts without which it is not worth a word.
    """

    says: str
    remedy: str
    rules: tuple[str, ...] = ()
    hints: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


CAUSES: dict[str, Cause] = {
    "window": Cause(
        "a window that is too small, for instance for the batches of prefill (A2 does not check it)",
        "Compute the size for the largest max_bs with `ascend-moe buffsize`.",
        ("X-39", "E-01"),
        frozenset({"buffer", "HCCL_BUFFSIZE"}),
    ),
    "ids": Cause(
        "expert ids outside the experts, or an expert twice in a row",
        "Run once with ASCEND_MOE_CHECK=full to check the ids.",
        ("X-36", "X-37"),
    ),
    "topology": Cause(
        "ranks that do not share one super node: on A3, full mesh writes into the peers' memory, which "
        "RoCE between servers does not reach",
        "Keep the EP group inside the super node, use comm_alg='hierarchy' (CANN 9.1), or another path of "
        "the engine.",
        ("E-12",),
        frozenset({"servers"}),
    ),
    "link": Cause(
        "a link between the ranks that failed while they wrote (the vendor lists network faults as a cause "
        "of this error of dispatch and combine)",
        "Look for EI0013, 'error cqe' or 507056, and check the ports: hccn_tool -i N -link -g.",
        (),
        frozenset({"link"}),
    ),
    "dead peer": Cause(
        "a peer that died or fell behind: it never wrote what this rank waited for",
        "Look for the earliest error of any rank; this one is its echo.",
        (),
        frozenset({"dead"}),
    ),
    "disagreement": Cause(
        "ranks that call with different arguments, or one that does not call",
        SAME_EVERYWHERE,
        ("X-08", "X-40", "X-45"),
    ),
    "driver": Cause(
        "an old driver: 24.1 hangs on A2, and CANN 9.1 needs 25.2 or later",
        "Install a driver that fits CANN, the same on all nodes.",
        ("E-04",),
        frozenset({"driver"}),
    ),
    "one server": Cause(
        "a single A2 server (EP8), which only CANN 9.1 serves",
        "Use CANN 9.1, two servers or more, or another path of the engine.",
        ("E-12",),
    ),
    "aiv": Cause(
        "HCCL_OP_EXPANSION_MODE=AIV: a collective on vector cores beside these operators, and together "
        "they want more cores than there are",
        "Unset HCCL_OP_EXPANSION_MODE on all ranks, or keep collectives and these operators apart.",
        ("E-13",),
        frozenset({"aiv"}),
    ),
    "aiv set": Cause(
        "HCCL_OP_EXPANSION_MODE=AIV, which this log shows: a collective on vector cores beside these "
        "operators, and together they want more cores than there are",
        "Unset HCCL_OP_EXPANSION_MODE on all ranks, or keep collectives and these operators apart.",
        ("E-13",),
        frozenset({"aiv"}),
        frozenset({"aiv"}),
    ),
    "memory": Cause(
        "device memory: every group takes twice HCCL_BUFFSIZE",
        "Lower HCCL_BUFFSIZE to what `ascend-moe buffsize` says, create fewer groups, or give the engine a "
        "smaller share of the memory.",
        ("X-39",),
        frozenset({"memory"}),
    ),
    "queue pairs": Cause(
        "queue pairs or notifies that ran out",
        "Fewer communicators per device: one EP group serves all layers.",
        ("E-06",),
        frozenset({"resource"}),
    ),
    "set-up": Cause(
        "links that were not set up: ranks that started apart, or a network between them that is closed",
        "Start the ranks together, check the links between the servers, and keep the EP group where it "
        "may be.",
        ("E-12",),
        frozenset({"servers", "link"}),
    ),
    "dtype": Cause(
        "a dtype or shape that the operator definition does not list",
        "Check dtypes first: ids and counts int32, scales float32, mask bool.",
        ("X-32", "X-35", "D-02", "D-05", "D-09", "C-01", "C-05"),
    ),
    "missing": Cause(
        "a tensor that is missing, or a group name that is too long",
        "Pass all required tensors; a group name has 1 to 127 bytes.",
        ("X-01", "D-10", "C-05"),
    ),
}

# Lists that several codes share.
WRITES_BEYOND = ("window", "ids", "topology", "link")
WAITED = ("dead peer", "disagreement", "driver", "one server", "topology", "aiv")
