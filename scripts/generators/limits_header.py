"""kernels/device/moe_limits.h: the limits for the argument checks and the static sizes of kernels/."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.contract import limits
from ascend_moe.contract.limits import CONTRACTS, LIMITS, PATHS, PRODUCTS, PathLimits
from ascend_moe.contract.shapes import ASSIST_WORDS_PER_ROW

NAMES = {
    "fullmesh": "FullMesh",
    "fullmesh_v2": "FullMeshV2",
    "hierarchy": "Hierarchy",
    "cann-8.2": "Cann82",
    "cann-9.1": "Cann91",
}
HEAD = """// The limits of the two operators, by contract, product and path. Made by scripts/generate from
// ascend_moe/contract/limits.py; change them there. Host code includes <cstdint> before.
#pragma once

namespace ascend_moe::limits {

// What one path of one product allows. 0 in an upper bound: the contract sets none.
struct PathLimits {
    int64_t ep_min, ep_max, ep_multiple;  // the hull of the legal ep_world_size values
    int64_t batch_max;
    int64_t hidden_min, hidden_max, hidden_multiple;
    int64_t topk_max;
    int64_t moe_experts_max;
    int64_t local_experts_max;
    int64_t local_times_ep_max;
    int64_t tp_max;
    int64_t ranks_per_server;  // 0: full mesh
    bool sums_by_expert;       // a server adds the rows of a token by expert id, not by k
    bool mask_ignored;         // x_active_mask is looked at for its shape alone
    bool performance_info;
    bool shared_ranks, zero_experts, copy_experts, const_experts;
};

"""
CONSTANTS = {
    "kNameBytesMax": limits.NAME_BYTES_MAX,
    "kSharedExpertsMax": limits.SHARED_EXPERTS_MAX,
    "kExpertsTotalBelow": limits.EXPERTS_TOTAL_BELOW,
    "kAssistWordsPerRow": ASSIST_WORDS_PER_ROW,
    "kRanksPerServer": limits.RANKS_PER_SERVER,
    "kPackedHiddenMax": limits.PACKED_HIDDEN_MAX,
    "kWindowMbDefault": limits.WINDOW_MB_DEFAULT,
    "kWindowMbMin": limits.WINDOW_MB_MIN,
}


def files(root: Path) -> dict[str, str]:
    return {"kernels/device/moe_limits.h": document()}


def document() -> str:
    lines = [f"constexpr int64_t {name} = {value};" for name, value in CONSTANTS.items()]
    for contract in CONTRACTS:
        for product in PRODUCTS:
            table = LIMITS[contract, product]
            for path in PATHS:
                if path in table.paths:
                    name = f"k{NAMES[contract]}{product}{NAMES[path]}"
                    lines += ["", *initialiser(name, table.paths[path], max(table.tp_sizes))]
    largest = [path for table in LIMITS.values() for path in table.paths.values()]
    lines += [
        "",
        "// The largest of every contract, product and path: for static sizes.",
        f"constexpr int64_t kEpMax = {max(ep_hull(path)[1] for path in largest)};",
        f"constexpr int64_t kBatchMax = {max(path.batch_max for path in largest)};",
        f"constexpr int64_t kHiddenMax = {max(path.hidden_max for path in largest)};",
        f"constexpr int64_t kTopkMax = {max(path.topk_max for path in largest)};",
        f"constexpr int64_t kMoeExpertsMax = {max(path.moe_experts_max for path in largest)};",
    ]
    return HEAD + "\n".join(lines) + "\n\n}  // namespace ascend_moe::limits\n"


def ep_hull(path: PathLimits) -> tuple[int, int, int]:
    sizes = path.ep_sizes
    if sizes.listed:
        return min(sizes.listed), max(sizes.listed), 1
    return sizes.low, sizes.high, sizes.multiple


def initialiser(name: str, path: PathLimits, tp_max: int) -> list[str]:
    """One constant; C++17 has no designated initialisers, so comments name the members."""
    ep_min, ep_max, ep_multiple = ep_hull(path)
    members: dict[str, int | bool] = {
        "ep_min": ep_min,
        "ep_max": ep_max,
        "ep_multiple": ep_multiple,
        "batch_max": path.batch_max,
        "hidden_min": path.hidden_min,
        "hidden_max": path.hidden_max,
        "hidden_multiple": path.hidden_multiple,
        "topk_max": path.topk_max,
        "moe_experts_max": path.moe_experts_max,
        "local_experts_max": path.local_experts_max or 0,
        "local_times_ep_max": path.local_times_ep_max or 0,
        "tp_max": tp_max,
        "ranks_per_server": path.ranks_per_server,
        "sums_by_expert": path.sums_by_expert,
        "mask_ignored": path.mask_ignored,
        "performance_info": path.performance_info,
        "shared_ranks": path.shared_ranks,
        "zero_experts": "zero" in path.special_experts,
        "copy_experts": "copy" in path.special_experts,
        "const_experts": "const" in path.special_experts,
    }
    values = {member: str(value).lower() + "," for member, value in members.items()}
    width = max(map(len, values.values()))
    return [
        f"constexpr PathLimits {name} = {{",
        *(f"    {value:<{width}}  // {member}" for member, value in values.items()),
        "};",
    ]
