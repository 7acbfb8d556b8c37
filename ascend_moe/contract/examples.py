"""Described calls: a legal one per operator, product, contract and path, and changes to it.

The rule records carry their violating and legal calls as such changes; tests, `ascend-moe explain`
and the documentation build the calls from them. A change is an attribute, one of the sizes BS, H,
K, env, or a tensor as (size, ..., dtype, content) with sizes by name and an optional content:

    "strided"    not contiguous          "gap"        mask: an inactive token before an active one
    "grad"       requires grad           "too large"  ids: one is the number of experts
    "distinct"   ids: 0..K-1             "twice"      ids: one row names an expert twice

and for elastic_info the names of `ELASTIC`. "implementation" says who runs the call, if not CANN's kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ascend_moe.contract.buffsize import STOCK
from ascend_moe.contract.call import Call as NormalCall
from ascend_moe.contract.call import DescribedTensor
from ascend_moe.contract.limits import CONTRACTS, FULLMESH_V2, HIERARCHY, LIMITS, PRODUCTS
from ascend_moe.contract.path import PCIE, ROCE
from ascend_moe.contract.rules import Rule
from ascend_moe.contract.rules.combine import count_words
from ascend_moe.contract.shapes import ASSIST_WORDS_PER_ROW
from ascend_moe.contract.signature import CANN_8_2, OPERATORS

SIZES = {"BS": 8, "H": 1024, "K": 8}
ATTRIBUTES: Mapping[str, object] = {
    "group_ep": "ep_group",
    "ep_world_size": 16,
    "ep_rank_id": 0,
    "moe_expert_num": 32,
}
AMPLE_WINDOW_MB = "20000"


@dataclass(frozen=True)
class Setting:
    """Where a call takes place."""

    op: str
    product: str
    contract: str
    path: str

    def __str__(self) -> str:
        return f"{self.op}-{self.product}-{self.contract}-{self.path}"


@dataclass(frozen=True)
class ExampleCall:
    """A call ready for check.violations: keywords and environment."""

    args: dict[str, object]
    env: dict[str, str]
    implementation: str = STOCK


def settings() -> Iterator[Setting]:
    """Every combination that exists; fullmesh_v2 is a path of dispatch only."""
    for op in OPERATORS:
        for product in PRODUCTS:
            for contract in CONTRACTS:
                for path in LIMITS[contract, product].paths:
                    if path != FULLMESH_V2 or op == "dispatch":
                        yield Setting(op, product, contract, path)


def example_settings(rule: Rule) -> Iterator[Setting]:
    """Where the rule applies and its examples show it."""
    for setting in settings():
        if (
            setting.op in rule.operators
            and setting.product in rule.products
            and setting.contract in rule.contracts
            and setting.path in rule.paths
            and all(getattr(setting, key) in allowed for key, allowed in rule.only.items())
            and not any(
                all(getattr(setting, key) == value for key, value in excluded.items())
                for excluded in rule.excluding
            )
        ):
            yield setting


def example_call(setting: Setting, changes: Mapping[str, object]) -> ExampleCall:
    """The base call of a setting with changes applied."""
    env = {"HCCL_BUFFSIZE": AMPLE_WINDOW_MB}
    args = dict(ATTRIBUTES)
    if setting.path == FULLMESH_V2:
        args["comm_alg"] = FULLMESH_V2
    if setting.path == HIERARCHY:
        if setting.contract == CANN_8_2:
            env |= {PCIE: "1", ROCE: "0"}
        else:
            args["comm_alg"] = HIERARCHY
    sizes: dict[str, int] = dict(SIZES)
    implementation = STOCK
    tensors: dict[str, object] = {}
    for key, value in changes.items():
        if key == "env":
            assert isinstance(value, Mapping)
            env |= value
        elif key == "implementation":
            implementation = str(value)
        elif key in sizes:
            assert isinstance(value, int)
            sizes[key] = value
        elif isinstance(value, tuple):
            tensors[key] = value
        else:
            args[key] = value
    _add_sizes(sizes, setting, args, env)
    for name, description in (_base_tensors(setting, args) | tensors).items():
        if name not in changes or name in tensors:
            assert isinstance(description, tuple)
            args[name] = _tensor(description, sizes)
    return ExampleCall(args, env, implementation)


def _add_sizes(
    sizes: dict[str, int], setting: Setting, args: Mapping[str, object], env: Mapping[str, str]
) -> None:
    """Sizes that follow from others, as a described dispatch derives them."""
    batch, hidden, topk = sizes["BS"], sizes["H"], sizes["K"]
    attributes = {key: value for key, value in args.items() if key in _DISPATCH_ATTRIBUTES}
    call = NormalCall(
        "dispatch",
        {
            **attributes,
            "x": DescribedTensor((batch, hidden), "bfloat16"),
            "expert_ids": DescribedTensor((batch, topk), "int32"),
        },
        product=setting.product,
        contract=setting.contract,
        env=env,
    )
    rows = (call.rows or batch * topk * 16) * call.tp_ranks
    words = count_words(call) or 16 * call.moe_expert_num
    sizes |= {
        "moe": call.moe_expert_num,
        "moe+1": call.moe_expert_num + 1,
        "experts": max(call.experts_total, 1),
        "A": rows,
        "A-1": rows - 1,
        "A*128": rows * ASSIST_WORDS_PER_ROW,
        "A*128-1": (call.rows or rows) * ASSIST_WORDS_PER_ROW - 1,
        "counts": words,
        "counts-1": words - 1,
    }


_DISPATCH_ATTRIBUTES = frozenset(
    {
        "group_ep",
        "ep_world_size",
        "ep_rank_id",
        "moe_expert_num",
        "tp_world_size",
        "shared_expert_num",
        "shared_expert_rank_num",
        "global_bs",
        "comm_alg",
        "zero_expert_num",
        "copy_expert_num",
        "const_expert_num",
    }
)


def _base_tensors(setting: Setting, args: Mapping[str, object]) -> dict[str, object]:
    tensors: dict[str, object] = {"expert_ids": ("BS", "K", "int32")}
    if setting.op == "dispatch":
        tensors["x"] = ("BS", "H", "bfloat16")
        if setting.path == HIERARCHY:
            tensors["expert_scales"] = ("BS", "K", "float32")
        return tensors
    tensors |= {
        "expand_x": ("A", "H", "bfloat16"),
        "assist_info_for_combine": ("A*128", "int32"),
        "ep_send_counts": ("counts", "int32"),
        "expert_scales": ("BS", "K", "float32"),
    }
    if args.get("tp_world_size") == 2:
        tensors["tp_send_counts"] = (2, "int32")
    if setting.product == "A2" or setting.path == HIERARCHY:
        tensors["expand_scales"] = ("A", "float32")
    return tensors


def _left(experts: int, new_rank_of_first: int) -> tuple[int, ...]:
    """The last of 16 ranks with two experts each is gone."""
    by_old = (new_rank_of_first, *range(1, 15), -1)
    return (1, 15, 0, experts, *by_old, *range(15), -1)


ELASTIC = {
    "all but the last rank": _left(30, 0),
    "one expert too many": _left(31, 0),
    "tables that differ": _left(30, 1),
}

DTYPES = ("bfloat16", "float16", "float32", "int32", "int64", "bool", "int8")


def _tensor(description: tuple[object, ...], sizes: Mapping[str, int]) -> DescribedTensor:
    position = next(index for index, part in enumerate(description) if part in DTYPES)
    shape = tuple(
        sizes[part] if isinstance(part, str) else int(str(part)) for part in description[:position]
    )
    content = description[position + 1] if len(description) > position + 1 else None
    values: object = None
    if content in ("distinct", "too large", "twice"):
        rows = [list(range(shape[1])) for _ in range(shape[0])]
        if content == "too large":
            rows[0][-1] = sizes["experts"]
        if content == "twice":
            rows[0][1] = rows[0][0]
        values = tuple(map(tuple, rows))
    if content in ELASTIC:
        values = ELASTIC[str(content)]
    if content == "gap":
        values = (True, False, *(True for _ in range(shape[0] - 2)))
    return DescribedTensor(
        shape,
        str(description[position]),
        contiguous=content != "strided",
        requires_grad=content == "grad",
        values=values,
    )
