"""Which way the tokens travel; limits and buffer sizes depend on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ascend_moe.contract.limits import (
    BETWEEN,
    FULLMESH,
    FULLMESH_V2,
    HIERARCHY,
    LIMITS,
    RANKS_PER_SERVER,
)
from ascend_moe.contract.signature import CANN_9_1

PCIE, ROCE = "HCCL_INTRA_PCIE_ENABLE", "HCCL_INTRA_ROCE_ENABLE"


def environment_selects_hierarchy(env: Mapping[str, str]) -> bool:
    """A2 reads two variables as strings: PCIE exactly "1" and ROCE exactly "0", both set."""
    return env.get(PCIE) == "1" and env.get(ROCE) == "0"


def select_path(
    *, product: str, contract: str, ep_world_size: int, comm_alg: str, env: Mapping[str, str]
) -> str:
    """The path of a call. An unknown comm_alg travels full mesh here; rule X-29 refuses it."""
    knows_comm_alg = contract == CANN_9_1
    if product == "A3":
        if comm_alg in (FULLMESH_V2, HIERARCHY) and comm_alg in LIMITS[contract, product].paths:
            return comm_alg
        return FULLMESH
    if knows_comm_alg and ep_world_size <= RANKS_PER_SERVER:
        return FULLMESH  # one server has no second level
    if comm_alg == HIERARCHY and knows_comm_alg:
        return HIERARCHY
    if comm_alg in ("", "0") and environment_selects_hierarchy(env):
        return HIERARCHY
    return FULLMESH


def path_of(call: Mapping[str, Any], *, product: str, contract: str) -> str:
    """The path of a call that runs here, by this process's own variables."""
    return select_path(
        product=product,
        contract=CANN_9_1 if contract == BETWEEN else contract,
        ep_world_size=call["ep_world_size"],
        comm_alg=call["comm_alg"],
        env=os.environ,
    )
