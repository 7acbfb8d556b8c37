"""Every limit of the two operators, by contract and product; no other file holds one.

A contract is the state of the public documents at one time:

    cann-8.2   op-plugin d1c6186d (2025-08-15): the first release of the pair, with TP, no comm_alg
    cann-9.1   op-plugin 517f2e7d (2026-08-21): comm_alg, special experts, A3 hierarchy, no TP

A path is how the tokens travel; limits differ between paths, so they are kept per path:

    fullmesh      every rank writes to every other rank
    fullmesh_v2   A3 dispatch only: same traffic, a denser window
    hierarchy     inside a server first, then between servers

The C++ limits header of kernels/ and docs/constraints.md are generated from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ascend_moe.contract.signature import CANN_8_2, CANN_9_1

CONTRACTS = (CANN_8_2, CANN_9_1)
BETWEEN = "cann-8.3"  # CANN 8.3 to 9.0: errors are what both contracts refuse, see check.py

PRODUCTS = ("A2", "A3")

FULLMESH, FULLMESH_V2, HIERARCHY = "fullmesh", "fullmesh_v2", "hierarchy"
PATHS = (FULLMESH, FULLMESH_V2, HIERARCHY)
MESHES = (FULLMESH, FULLMESH_V2)

NAME_BYTES_MAX = 127  # a communicator name; HCCL keeps 128 bytes with the terminator
SHARED_EXPERTS_MAX = 4
QUANT_MODES = (0, 2)
COMM_QUANT_MODES = (0, 2)
EXPERT_TOKEN_NUMS_TYPES = (0, 1)
EXPERT_SHARD_TYPES = (0,)
EXPERTS_TOTAL_BELOW = 2**31 - 1  # MoE and special experts together
RANKS_PER_SERVER = 8  # A2
RANKS_PER_SERVER_A3 = 16  # dies
PACKED_HIDDEN_MAX = 5120  # int32 x: words per token
PACKED_HIDDEN_MULTIPLE = 32
WINDOW_MB_DEFAULT = 200
WINDOW_MB_MIN = 2


@dataclass(frozen=True)
class EpSizes:
    """The legal ep_world_size values: a list, or every multiple of `multiple` in [low, high]."""

    listed: tuple[int, ...] = ()
    low: int = 0
    high: int = 0
    multiple: int = 1

    def __contains__(self, ep: object) -> bool:
        if self.listed:
            return ep in self.listed
        return isinstance(ep, int) and self.low <= ep <= self.high and ep % self.multiple == 0

    def __str__(self) -> str:
        if self.listed:
            return "{" + ", ".join(map(str, self.listed)) + "}"
        step = f", multiples of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.low}..{self.high}{step}"


@dataclass(frozen=True)
class PathLimits:
    """What one path of one product allows. None: the contract sets no such limit."""

    ep_sizes: EpSizes
    batch_max: int
    hidden_min: int
    hidden_max: int
    hidden_multiple: int
    topk_max: int = 16
    moe_experts_max: int = 1024
    moe_experts_warn: int | None = None  # kernels of the same time stop earlier than the documents
    local_experts_max: int | None = None
    local_experts_warn: int | None = None
    local_times_ep_max: int | None = None
    mask_ranks: tuple[int, ...] = (1, 2)  # dimensions x_active_mask may have; (): keep it None
    mask_ignored: bool = (
        False  # the kernels have no mask: the tokens that it switches off travel too
    )
    special_experts: tuple[str, ...] = ()
    performance_info: bool = False
    elastic_info: bool = False  # for who serves it, see rules/elastic.py
    packed_x: bool = False  # int32 x, eight int4 in a word
    comm_quant_modes: tuple[int, ...] = COMM_QUANT_MODES
    shared_ranks: bool = False
    uneven_batches: bool = True
    ranks_per_server: int = 0  # hierarchy: neighbours that add their rows before these leave
    sums_by_expert: bool = False  # hierarchy: a server adds by ascending expert id, not by k


@dataclass(frozen=True)
class Limits:
    """What one product allows in one contract."""

    paths: Mapping[str, PathLimits]
    tp_sizes: tuple[int, ...]
    comm_algs: Mapping[str, tuple[str, ...]]


def _limits(
    paths: Mapping[str, PathLimits],
    tp_sizes: tuple[int, ...],
    comm_algs: Mapping[str, tuple[str, ...]],
) -> Limits:
    return Limits(MappingProxyType(dict(paths)), tp_sizes, MappingProxyType(dict(comm_algs)))


# The first operators have no comm_alg; their wrapper sends "0" down, so that value is tolerated.
_NO_COMM_ALG = {"dispatch": ("", "0"), "combine": ("", "0")}
_A2_COMM_ALGS = ("", "0", "fullmesh", "hierarchy")

LIMITS: Mapping[tuple[str, str], Limits] = MappingProxyType(
    {
        (CANN_8_2, "A2"): _limits(
            {
                FULLMESH: PathLimits(
                    ep_sizes=EpSizes(listed=(16, 32, 64)),
                    batch_max=256,
                    hidden_min=32,
                    hidden_max=7168,
                    hidden_multiple=32,
                    moe_experts_warn=512,
                    local_experts_max=24,
                    mask_ranks=(),
                    comm_quant_modes=(0,),
                ),
                HIERARCHY: PathLimits(
                    ep_sizes=EpSizes(listed=(16, 32, 64)),
                    batch_max=256,
                    hidden_min=32,
                    hidden_max=7168,
                    hidden_multiple=32,
                    moe_experts_warn=512,
                    mask_ignored=True,
                    ranks_per_server=RANKS_PER_SERVER,
                ),
            },
            tp_sizes=(0, 1),
            comm_algs=_NO_COMM_ALG,
        ),
        (CANN_8_2, "A3"): _limits(
            {
                FULLMESH: PathLimits(
                    ep_sizes=EpSizes(low=2, high=768),
                    batch_max=512,
                    hidden_min=1024,
                    hidden_max=8192,
                    hidden_multiple=1,
                    local_times_ep_max=1280,
                    shared_ranks=True,
                ),
            },
            tp_sizes=(0, 1, 2),
            comm_algs=_NO_COMM_ALG,
        ),
        (CANN_9_1, "A2"): _limits(
            {
                FULLMESH: PathLimits(
                    ep_sizes=EpSizes(listed=(2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256)),
                    batch_max=256,
                    hidden_min=32,
                    hidden_max=7168,
                    hidden_multiple=32,
                    special_experts=("zero", "copy"),
                    performance_info=True,
                    packed_x=True,
                    comm_quant_modes=(0,),
                ),
                HIERARCHY: PathLimits(
                    ep_sizes=EpSizes(listed=(16, 32, 64)),
                    batch_max=512,
                    hidden_min=32,
                    hidden_max=10240,
                    hidden_multiple=32,
                    moe_experts_warn=512,
                    mask_ignored=True,
                    performance_info=True,
                    ranks_per_server=RANKS_PER_SERVER,
                    sums_by_expert=True,
                ),
            },
            tp_sizes=(0, 1),
            comm_algs={"dispatch": _A2_COMM_ALGS, "combine": _A2_COMM_ALGS},
        ),
        (CANN_9_1, "A3"): _limits(
            {
                FULLMESH: PathLimits(
                    ep_sizes=EpSizes(low=2, high=768),
                    batch_max=512,
                    hidden_min=1024,
                    hidden_max=8192,
                    hidden_multiple=1,
                    local_times_ep_max=2048,
                    special_experts=("zero", "copy", "const"),
                    performance_info=True,
                    elastic_info=True,
                    shared_ranks=True,
                ),
                FULLMESH_V2: PathLimits(
                    ep_sizes=EpSizes(low=2, high=768),
                    batch_max=256,
                    hidden_min=1024,
                    hidden_max=8192,
                    hidden_multiple=1,
                    topk_max=12,
                    local_times_ep_max=2048,
                    special_experts=("zero", "copy", "const"),
                    performance_info=True,
                    elastic_info=True,
                    shared_ranks=True,
                ),
                HIERARCHY: PathLimits(
                    ep_sizes=EpSizes(low=16, high=256, multiple=16),
                    batch_max=256,
                    hidden_min=1024,
                    hidden_max=7168,
                    hidden_multiple=32,
                    moe_experts_max=512,
                    local_experts_warn=24,
                    mask_ranks=(1,),
                    uneven_batches=False,
                    ranks_per_server=RANKS_PER_SERVER_A3,
                ),
            },
            tp_sizes=(0, 1),
            comm_algs={
                "dispatch": ("", "fullmesh_v1", "fullmesh_v2", "hierarchy"),
                "combine": ("", "hierarchy"),
            },
        ),
    }
)


# The paths by name, for the sentences of the rules.
A2_FIRST, A3_FIRST = (LIMITS[CANN_8_2, product].paths for product in PRODUCTS)
A2_LATER, A3_LATER = (LIMITS[CANN_9_1, product].paths for product in PRODUCTS)


def path_limits(contract: str, product: str, path: str) -> PathLimits:
    """The limits of one path; a path that the contract does not know counts as full mesh."""
    paths = LIMITS[contract, product].paths
    return paths.get(path) or paths[FULLMESH]
