"""Both sides of every limit, with numbers copied from the public documents, not from limits.py."""

import pytest

from ascend_moe.contract.check import violations
from ascend_moe.contract.examples import Setting, example_call

A2_8, A3_8 = ("A2", "cann-8.2"), ("A3", "cann-8.2")
A2_9, A3_9 = ("A2", "cann-9.1"), ("A3", "cann-9.1")
EVERYWHERE = [
    (*A2_8, "fullmesh"),
    (*A2_8, "hierarchy"),
    (*A3_8, "fullmesh"),
    (*A2_9, "fullmesh"),
    (*A2_9, "hierarchy"),
    (*A3_9, "fullmesh"),
    (*A3_9, "fullmesh_v2"),
    (*A3_9, "hierarchy"),
]


def rules(place, changes, op="dispatch", level="error"):
    product, contract, path = place
    example = example_call(Setting(op, product, contract, path), changes)
    found = violations(op, example.args, product=product, contract=contract, env=example.env)
    return {violation.rule for violation in found if violation.level == level}


def operators(place):
    return ("dispatch",) if place[2] == "fullmesh_v2" else ("dispatch", "combine")


# path: (rule, largest BS)
BATCH = dict(zip(EVERYWHERE, [256, 256, 512, 256, 512, 512, 256, 256], strict=True))


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_batch(place):
    largest = BATCH[place]
    rule = "X-43" if place[2] == "fullmesh_v2" else "X-24"
    for op in operators(place):
        assert rules(place, {"BS": largest}, op) == set()
        assert rules(place, {"BS": 1}, op) == set()
        assert rules(place, {"BS": largest + 1}, op) == {rule}
        if place[2] != "fullmesh_v2":
            assert rules(place, {"BS": 0}, op) == {"X-24"}


HIDDEN = {
    (*A2_8, "fullmesh"): ([32, 5120, 7168], [0, 16, 7160, 7200, 8192]),
    (*A2_8, "hierarchy"): ([32, 7168], [48, 7200, 10240]),
    (*A3_8, "fullmesh"): ([1024, 1025, 7160, 8192], [0, 1023, 8193]),
    (*A2_9, "fullmesh"): ([32, 7168], [16, 7200, 10240]),
    (*A2_9, "hierarchy"): ([32, 7200, 10240], [16, 10241, 10272]),
    (*A3_9, "fullmesh"): ([1024, 1025, 8192], [1023, 8193]),
    (*A3_9, "fullmesh_v2"): ([1024, 1025, 8192], [1023, 8193]),
    (*A3_9, "hierarchy"): ([1024, 7168], [1023, 1040, 7169, 7200]),
}


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_hidden(place):
    legal, illegal = HIDDEN[place]
    for op in operators(place):
        for hidden in legal:
            assert rules(place, {"H": hidden}, op) == set(), hidden
        for hidden in illegal:
            assert rules(place, {"H": hidden}, op) == {"X-25"}, hidden


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_topk(place):
    largest = 12 if place[2] == "fullmesh_v2" else 16
    for op in operators(place):
        assert rules(place, {"K": 1}, op) == set()
        assert rules(place, {"K": largest}, op) == set()
        assert rules(place, {"K": 17}, op) >= {"X-26"}
        assert rules(place, {"K": 0}, op) == {"X-26"}
    assert rules(place, {"K": 13}) == ({"X-43"} if largest == 12 else set())
    assert rules(place, {"moe_expert_num": 16, "K": largest}) == set()


def test_topk_counts_special_experts():
    place = (*A3_9, "fullmesh")
    few = {"ep_world_size": 2, "moe_expert_num": 4, "K": 5}
    assert rules(place, few) == {"X-26"}
    assert rules(place, few | {"zero_expert_num": 1}) == set()
    assert rules((*A2_8, "fullmesh"), {"moe_expert_num": 16, "K": 16}) == set()


EP = {
    (*A2_8, "fullmesh"): ([16, 32, 64], [2, 8, 24, 48, 128, 256]),
    (*A2_8, "hierarchy"): ([16, 32, 64], [8, 48, 128]),
    (*A3_8, "fullmesh"): ([2, 3, 5, 288, 768], [1, 769]),
    (*A2_9, "fullmesh"): (
        [2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256],
        [1, 9, 12, 24, 48, 192, 384, 512],
    ),
    (*A2_9, "hierarchy"): ([16, 32, 64], [48, 128, 256]),
    (*A3_9, "fullmesh"): ([2, 5, 768], [1, 769]),
    (*A3_9, "fullmesh_v2"): ([2, 768], [1, 769]),
    (*A3_9, "hierarchy"): ([16, 32, 256], [2, 24, 272, 512]),
}


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_ep_world_size(place):
    legal, illegal = EP[place]
    rule = "X-05" if place[0] == "A2" else "X-06" if place[2] == "hierarchy" else "X-04"
    for op in operators(place):
        for ep in legal:
            experts = ep if ep >= 8 else ep * 8
            assert rules(place, {"ep_world_size": ep, "moe_expert_num": experts}, op) == set(), ep
        for ep in illegal:
            experts = ep if ep >= 8 else ep * 8
            found = rules(place, {"ep_world_size": ep, "moe_expert_num": experts}, op)
            assert found == {rule}, ep


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_moe_experts(place):
    largest = 512 if place == (*A3_9, "hierarchy") else 1024
    # With 64 ranks no other limit binds before 1024 experts.
    sizes = {"ep_world_size": 64}
    for op in operators(place):
        assert rules(place, sizes | {"moe_expert_num": largest}, op) == set()
        assert rules(place, sizes | {"moe_expert_num": largest + 64}, op) == {"X-09"}
        assert "X-09" in rules(place, sizes | {"moe_expert_num": 0}, op)
    warned = rules(place, sizes | {"moe_expert_num": 576}, level="warning")
    stops_at_512 = place in [(*A2_8, "fullmesh"), (*A2_8, "hierarchy"), (*A2_9, "hierarchy")]
    assert ("X-09" in warned) == stops_at_512
    assert rules(place, sizes | {"moe_expert_num": 512}, level="warning") == set()


def test_moe_experts_to_the_last_one():
    sizes = {"ep_world_size": 25, "moe_expert_num": 1025}
    assert rules((*A3_8, "fullmesh"), sizes) == {"X-09"}
    assert rules((*A3_9, "fullmesh_v2"), sizes) == {"X-09"}


def test_hierarchy_has_no_shared_ranks():
    sizes = {"shared_expert_num": 1, "shared_expert_rank_num": 2, "moe_expert_num": 28}
    assert rules((*A3_9, "hierarchy"), sizes) == {"X-18"}


def test_int32_x_is_for_a2_full_mesh():
    packed = {"x": ("BS", "H", "int32"), "scales": ("BS", "float32")}
    for place in EVERYWHERE:
        found = rules(place, packed)
        if place == (*A2_9, "fullmesh"):
            assert found == set()
            assert rules(place, packed | {"H": 5120}) == set()
            assert rules(place, packed | {"H": 5152}) == {"D-14"}
            assert rules(place, packed | {"H": 48}) == {"D-14"}
        else:
            assert found >= {"D-14" if place == (*A2_9, "hierarchy") else "D-02"}


# Published by upstream's shape-inference tests: (ep, moe, SN, SR, BS, K, rank) -> rows of expand_x.
@pytest.mark.parametrize(
    ("ep", "moe", "experts", "ranks", "batch", "topk", "rank", "rows"),
    [
        (288, 256, 1, 32, 32, 8, 0, 288),
        (8, 16, 4, 4, 32, 8, 0, 256),
        (8, 64, 1, 0, 32, 8, 0, 2048),
        (5, 12, 1, 2, 8, 4, 1, 24),
    ],
)
def test_rows_of_combine(ep, moe, experts, ranks, batch, topk, rank, rows):
    place = (*A3_9, "fullmesh")
    changes = {
        "ep_world_size": ep,
        "moe_expert_num": moe,
        "shared_expert_num": experts,
        "shared_expert_rank_num": ranks,
        "BS": batch,
        "K": topk,
        "ep_rank_id": rank,
    }
    for given, expected in ((rows, set()), (rows + 1, set()), (rows - 1, {"C-02"})):
        changes["expand_x"] = (given, "H", "bfloat16")
        assert rules(place, changes, "combine") == expected


def test_experts_per_rank_on_a2():
    at = {"ep_world_size": 16, "moe_expert_num": 24 * 16}
    above = {"ep_world_size": 16, "moe_expert_num": 25 * 16}
    for place in EVERYWHERE:
        assert rules(place, at) == set()
        expected = {"X-12"} if place == (*A2_8, "fullmesh") else set()
        assert rules(place, above) == expected, place


@pytest.mark.parametrize(
    ("ep", "ranks", "product", "in_seed", "in_current"),
    [
        (40, 8, 1280, True, True),  # 32 experts on each of 32 ranks, 40 ranks in all
        (61, 13, 1281, False, True),
        (64, 32, 2048, False, True),
        (683, 342, 2049, False, False),
        (96, 64, 3072, False, False),
    ],
)
def test_experts_times_ranks_on_a3(ep, ranks, product, in_seed, in_current):
    experts = product // ep * (ep - ranks)
    assert product % ep == 0
    assert experts <= 1024
    sizes = {
        "ep_world_size": ep,
        "shared_expert_num": 1,
        "shared_expert_rank_num": ranks,
        "moe_expert_num": experts,
    }
    for contract, legal in (("cann-8.2", in_seed), ("cann-9.1", in_current)):
        found = rules(("A3", contract, "fullmesh"), sizes)
        assert found == (set() if legal else {"X-11"})


def test_experts_per_rank_in_a3_hierarchy_is_a_warning():
    place = (*A3_9, "hierarchy")
    assert rules(place, {"moe_expert_num": 25 * 16}, level="warning") == {"X-11"}
    assert rules(place, {"moe_expert_num": 24 * 16}, level="warning") == set()


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_tp(place):
    tp2 = {"tp_world_size": 2, "group_tp": "tp", "moe_expert_num": 16}
    assert rules(place, tp2) == (set() if place[:2] == A3_8 else {"X-13"})
    assert rules(place, {"tp_world_size": 0}) == set()
    assert rules(place, {"tp_world_size": 1, "group_tp": "ep_group"}) == set()
    assert rules(place, {"tp_world_size": -1}) == {"X-13"}
    assert rules(place, {"tp_rank_id": 1}) == {"X-14"}
    if place[:2] == A3_8:
        assert rules(place, tp2 | {"tp_rank_id": 1}) == set()
        assert rules(place, tp2 | {"tp_rank_id": 2}) == {"X-14"}


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_mask(place):
    none = place == ("A2", "cann-8.2", "fullmesh")
    ignored = place[0] == "A2" and place[2] == "hierarchy"
    one_only = place == (*A3_9, "hierarchy")
    for op in operators(place):
        one = rules(place, {"x_active_mask": ("BS", "bool")}, op)
        two = rules(place, {"x_active_mask": ("BS", "K", "bool")}, op)
        assert one == ({"X-33"} if none else set())
        assert two == ({"X-33"} if none or one_only else set())
        for mask in (("BS", "bool"), ("BS", "K", "bool")):
            warned = rules(place, {"x_active_mask": mask}, op, level="warning")
            assert warned == ({"X-46"} if ignored else set())
        if ignored:  # its shape is checked all the same, and then nothing else is said of it
            for wrong in ((7, "bool"), ("BS", "K", "float32")):
                assert rules(place, {"x_active_mask": wrong}, op) == {"X-32"}
                assert rules(place, {"x_active_mask": wrong}, op, level="warning") == set()


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
@pytest.mark.parametrize("kind", ["zero", "copy", "const"])
def test_special_experts(place, kind):
    product, contract, path = place
    legal = contract == "cann-9.1" and (
        (product == "A2" and path == "fullmesh" and kind != "const")
        or (product == "A3" and path != "hierarchy")
    )
    found = rules(place, {f"{kind}_expert_num": 1})
    assert found == (set() if legal else {"X-28"})


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_comm_quant_mode(place):
    if place[2] == "fullmesh_v2":
        return
    refused = place[0] == "A2" and place[2] == "fullmesh"
    assert rules(place, {"comm_quant_mode": 2}, "combine") == ({"C-14"} if refused else set())


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_performance_info(place):
    legal = place[1] == "cann-9.1" and place != (*A3_9, "hierarchy")
    found = rules(place, {"performance_info": (16, "int64")})
    assert found == (set() if legal else {"X-31"})


@pytest.mark.parametrize(
    ("place", "op", "allowed"),
    [
        ((*A2_8, "fullmesh"), "dispatch", ["", "0"]),
        ((*A3_8, "fullmesh"), "dispatch", ["", "0"]),
        ((*A3_8, "fullmesh"), "combine", ["", "0"]),
        ((*A2_9, "fullmesh"), "dispatch", ["", "0", "fullmesh", "hierarchy"]),
        ((*A2_9, "fullmesh"), "combine", ["", "0", "fullmesh", "hierarchy"]),
        ((*A3_9, "fullmesh"), "dispatch", ["", "fullmesh_v1", "fullmesh_v2", "hierarchy"]),
        # The other two names of dispatch are a warning.
        ((*A3_9, "fullmesh"), "combine", ["", "hierarchy", "fullmesh_v1", "fullmesh_v2"]),
    ],
    ids=str,
)
def test_comm_alg(place, op, allowed):
    names = ["", "0", "fullmesh", "fullmesh_v1", "fullmesh_v2", "hierarchy", "ccu", "FULLMESH"]
    accepted = {name for name in names if "X-29" not in rules(place, {"comm_alg": name}, op)}
    assert accepted == set(allowed)


@pytest.mark.parametrize(
    ("experts", "ranks", "expected"),
    [
        (1, 0, set()),
        (0, 0, set()),
        (1, 2, set()),
        (2, 4, set()),
        (4, 4, set()),
        (0, 2, {"X-19"}),
        (2, 0, {"X-19"}),
        (2, 3, {"X-20"}),
        (4, 2, {"X-20"}),
        (5, 5, {"X-17"}),
        (-1, 0, {"X-17"}),
        (1, 16, {"X-18"}),
        (1, -1, {"X-18"}),
    ],
)
@pytest.mark.parametrize("contract", ["cann-8.2", "cann-9.1"])
def test_shared_experts(contract, experts, ranks, expected):
    moe = 16 - ranks if 0 < ranks < 16 else 16
    changes = {
        "shared_expert_num": experts,
        "shared_expert_rank_num": ranks,
        "moe_expert_num": moe if ranks >= 0 else 17,
        "K": 4,
    }
    assert rules(("A3", contract, "fullmesh"), changes) == expected


@pytest.mark.parametrize(
    ("global_bs", "expected"),
    [(0, set()), (128, set()), (144, set()), (120, {"X-22"}), (130, {"X-22"}), (-16, {"X-22"})],
)
def test_global_bs(global_bs, expected):
    for place in [(*A3_8, "fullmesh"), (*A2_8, "fullmesh")]:
        assert rules(place, {"global_bs": global_bs}) == expected
    equal_only = rules((*A3_9, "hierarchy"), {"global_bs": global_bs})
    assert equal_only == ({"X-41"} if global_bs == 144 else expected)
