"""The operators of an MoE layer on npu tensors against plain torch, within one rounding of the result."""

import torch
import torch_npu

torch.manual_seed(7)
torch.npu.config.allow_internal_format = True
BF16, F16, F32, INT8, INT32 = (
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.int8,
    torch.int32,
)
CHECKED: list[str] = []


def same(name, got, expected, ulps=0.0):
    """Equal, or, for floats whose sums may be in another order, apart by `ulps` of the type."""
    got = got.cpu()
    assert got.dtype == expected.dtype, (name, got.dtype, expected.dtype)
    if ulps:
        size = expected.float().abs().clamp_min(expected.float().abs().mean())
        worst = ((got.float() - expected.float()).abs() / size).max().item()
        assert worst <= ulps * torch.finfo(got.dtype).eps, (name, worst)
    else:
        assert torch.equal(got, expected), (name, got, expected)
    CHECKED.append(name)


def int8(*shape):
    return torch.randint(-127, 128, shape, dtype=INT8)


def npu(values):
    return [value.npu() for value in values]


# ---- npu_grouped_matmul: x (M, K), G weights (K, N)

M, K, N = 12, 2048 + 32, 24  # more than one block of the exact int8 product
COUNTS = [5, 0, 3]  # rows behind the last group stay as they are
GROUPS = len(COUNTS)


def rows_of(counts):
    ends = torch.tensor(counts).cumsum(0).tolist()
    return list(zip([0, *ends], ends, strict=False))


def grouped(x, weight, **options):
    return torch_npu.npu_grouped_matmul(
        [x.npu()], npu(weight), split_item=3, group_type=0, **options
    )[0]


def per_group(product, counts=COUNTS):
    return torch.cat(
        [product(g, slice(*span)) for g, span in enumerate(rows_of(counts)) if span[0] < span[1]]
    )


def round_int8(values):
    return values.round().clamp(-128, 127).to(INT8)


for dtype in (BF16, F16, F32):
    x, weight = torch.randn(M, K).to(dtype), torch.randn(GROUPS, K, N).to(dtype)
    plain = per_group(lambda g, s: (x[s].float() @ weight[g].float()).to(dtype))  # noqa: B023
    lists = {
        0: torch.tensor(COUNTS).cumsum(0),
        1: torch.tensor(COUNTS),
    }
    for kind, numbers in lists.items():
        for name, weights in (("one weight", [weight]), ("a weight per group", list(weight))):
            got = grouped(x, weights, group_list=numbers.npu(), group_list_type=kind)
            same(f"grouped {dtype} {kind} {name}", got[: len(plain)], plain, ulps=2)
# Without grouping (split_item 0), several x (2), and group_list as numbers.
xs = [torch.randn(m, K).to(BF16) for m in (4, 2)]
weights = [torch.randn(K, N).to(BF16) for _ in xs]
bias = [torch.randn(N) for _ in xs]
products = [(x.float() @ w.float() + b).to(BF16) for x, w, b in zip(xs, weights, bias, strict=True)]
got = torch_npu.npu_grouped_matmul(
    npu(xs), npu(weights), bias=npu(bias), split_item=0, group_type=-1
)
for one, other in zip(got, products, strict=True):
    same("grouped, split_item 0", one, other, ulps=2)
got = torch_npu.npu_grouped_matmul(
    npu(xs), npu(weights), bias=npu(bias), split_item=2, group_type=0
)
same("grouped, split_item 2, several x", got[0], torch.cat(products), ulps=2)
for split_item in (1, 3):
    got = torch_npu.npu_grouped_matmul(
        [torch.cat(xs).npu()],
        npu(weights),
        bias=npu(bias),
        group_list=[4, 6],
        split_item=split_item,
    )
    joined = torch.cat([part.cpu() for part in got])
    same(f"grouped, numbers, split_item {split_item}", joined, torch.cat(products), ulps=2)
x, weight = torch.randn(4, 10).to(F16), torch.randn(10, 6).to(F16)
got = torch_npu.npu_grouped_matmul(
    [x.npu()], [weight.npu()], group_list=torch.tensor([3, 10]).npu(), split_item=3, group_type=2
)[0]
parts = [x[:, :3].float() @ weight[:3].float(), x[:, 3:].float() @ weight[3:].float()]
same("grouped along K", got, torch.stack(parts).to(F16), ulps=2)

# int8: exact products, then the scales.
x, weight = int8(M, K), int8(GROUPS, K, N)
exact = per_group(lambda g, s: (x[s].long() @ weight[g].long()).to(INT32))
scale, row_scale, int_bias = (
    torch.rand(GROUPS, N) / 500,
    torch.rand(M),
    torch.randint(-9, 9, (GROUPS, N), dtype=INT32),
)
used = len(exact)
row_group = torch.repeat_interleave(torch.arange(GROUPS), torch.tensor(COUNTS))
number = {"group_list": torch.tensor(COUNTS).npu(), "group_list_type": 1}
got = grouped(x, [weight], output_dtype=INT32, **number)
same("grouped int8 to int32", got[:used], exact)
for dtype, scale_dtype in ((BF16, BF16), (F16, F32)):
    factor = scale.to(scale_dtype)
    expected = (exact + int_bias[row_group]).float() * factor[row_group].float()
    got = grouped(
        x,
        [weight],
        scale=npu([factor]),
        bias=npu([int_bias]),
        per_token_scale=npu([row_scale]),
        output_dtype=dtype,
        **number,
    )
    expected = expected * row_scale[:used, None]
    same(f"grouped int8 per token {dtype}", got[:used], expected.to(dtype))
pairs = torch.tensor([[2, 4], [0, 3]])
got = grouped(
    x,
    [weight],
    scale=npu([scale]),
    per_token_scale=npu([row_scale]),
    output_dtype=F16,
    group_list=pairs.npu(),
    group_list_type=2,
)
order = torch.tensor([2] * 4 + [0] * 3)
sparse = torch.stack(
    [(x[i].long() @ weight[g].long()).float() * scale[g] for i, g in enumerate(order)]
)
same("grouped int8 by pairs", got[:7], (sparse * row_scale[:7, None]).to(F16))
half = torch.randn(M, K).to(F16)
shift, step = torch.randn(GROUPS, N).to(F16), (torch.rand(GROUPS, N) / 50).to(F16)
got = grouped(half, [weight], antiquant_scale=npu([step]), antiquant_offset=npu([shift]), **number)
expected = per_group(
    lambda g, s: half[s].float() @ ((weight[g].float() + shift[g].float()) * step[g].float())
)
same("grouped with int8 weights", got[:used], expected.to(F16), ulps=2)

# ---- npu_quant_matmul

x1, x2 = int8(6, K), int8(K, N)
exact = (x1.long() @ x2.long()).to(INT32)
scale, row_scale, bias = (
    torch.rand(N) / 500,
    torch.rand(6),
    torch.randint(-99, 99, (N,), dtype=INT32),
)
got = torch_npu.npu_quant_matmul(
    x1.npu(),
    x2.npu(),
    scale.npu(),
    pertoken_scale=row_scale.npu(),
    bias=bias.npu(),
    output_dtype=BF16,
)
expected = ((exact + bias).float() * scale * row_scale[:, None]).to(BF16)
same("quant_matmul per token", got, expected)
got = torch_npu.npu_quant_matmul(
    x1.npu(), x2.npu(), scale.to(BF16).npu(), bias=torch.ones(N).npu(), output_dtype=BF16
)
same("quant_matmul per channel", got, (exact.float() * scale.to(BF16).float() + 1).to(BF16))
short = (scale.view(INT32) & ~0x1FFF).view(F32)  # what 19 bits keep
got = torch_npu.npu_quant_matmul(x1.npu(), x2.npu(), scale.npu(), output_dtype=F16)
same("quant_matmul, scale of 19 bits", got, (exact.float() * short).to(F16))
got = torch_npu.npu_quant_matmul(
    x1.npu(), x2.npu(), scale.npu(), offset=torch.full((N,), -3.0).npu()
)
same("quant_matmul to int8", got, round_int8((exact.float() * short).round() - 3))
nz = torch_npu.npu_format_cast(x2.npu(), 29)
assert torch_npu.get_npu_format(nz) == 29
got = torch_npu.npu_quant_matmul(x1.npu(), nz, scale.npu(), output_dtype=F16)
same("quant_matmul, NZ weight", got, (exact.float() * short).to(F16))

# ---- activation and quantisation

x = torch.randn(5, 64).to(BF16)
same(
    "swiglu",
    torch_npu.npu_swiglu(x.npu()),
    (torch.nn.functional.silu(x[:, :32].float()) * x[:, 32:].float()).to(BF16),
)
leaf = torch.randn(4, 6, dtype=F32)
device_leaf = leaf.npu().requires_grad_()
torch_npu.npu_swiglu(device_leaf, 0).square().sum().backward()
leaf.requires_grad_()
(torch.nn.functional.silu(leaf[:2]) * leaf[2:]).square().sum().backward()
same("swiglu, backward", device_leaf.grad, leaf.grad, ulps=8)

x[3] = 0  # a row of zeros has scale 0
smooth = torch.rand(2, 64).to(BF16)
ends = torch.tensor([2, 5], dtype=INT32)


def quantised(values):
    factor = torch.tensor(127.0) / values.abs().amax(1, keepdim=True)
    return round_int8((values * factor).nan_to_num(0.0)), (torch.tensor(1.0) / factor).view(-1)


for name, options, factor in (
    ("plain", {}, 1.0),
    ("smooth", {"smooth_scales": smooth[0].npu()}, smooth[0].float()),
    (
        "smooth by group",
        {"smooth_scales": smooth.npu(), "group_index": ends.npu()},
        smooth[torch.tensor([0, 0, 1, 1, 1])].float(),
    ),
):
    y, scale = torch_npu.npu_dynamic_quant(x.npu(), **options)
    expected_y, expected_scale = quantised(x.float() * factor)
    same(f"dynamic_quant {name}", y, expected_y)
    same(f"dynamic_quant {name}, scale", scale, expected_scale)
packed, _ = torch_npu.npu_dynamic_quant(x.npu(), dst_type=torch.quint4x2)
factor = torch.tensor(7.0) / x.float().abs().amax(1, keepdim=True)
nibbles = (x.float() * factor).nan_to_num(0.0).round().long() & 15
words = (nibbles.view(5, 8, 8) << (4 * torch.arange(8))).sum(-1)
same("dynamic_quant int4", packed, (words - (words >= 2**31) * 2**32).to(INT32))

x = torch.randint(-2000, 2000, (9, 64), dtype=INT32)
weight_scale, row_scale, smooth = torch.rand(3, 64) / 900, torch.rand(9, 1), torch.rand(3, 32)
counts = torch.tensor([4, 0, 3])
group = torch.repeat_interleave(torch.arange(3), counts)


def halves(values, left):
    first, second = values.chunk(2, 1)
    return (first, second) if left else (second, first)


values = x[:7].float() * weight_scale[group] * row_scale[:7]
for left in (True, False):
    y, scale = torch_npu.npu_dequant_swiglu_quant(
        x.npu(),
        weight_scale=weight_scale.npu(),
        activation_scale=row_scale.npu(),
        quant_scale=smooth.npu(),
        group_index=counts.npu(),
        activate_left=left,
        quant_mode=1,
    )
    gate, up = halves(values, left)
    active = torch.nn.functional.silu(gate) * up * smooth[group]
    step = active.abs().amax(1, keepdim=True) * torch.tensor(1 / 127, dtype=F32)
    same(f"dequant_swiglu_quant, left {left}", y[:7], round_int8(active / step))
    same(f"dequant_swiglu_quant, left {left}, scale", scale[:7], step.view(-1))
y, _ = torch_npu.npu_dequant_swiglu_quant(
    x.npu(),
    weight_scale=weight_scale[:1].npu(),
    activation_scale=row_scale.npu(),
    quant_scale=torch.full((1,), 0.1).npu(),
    quant_offset=torch.full((1,), 5.0).npu(),
    activate_left=True,
    quant_mode=0,
)
gate, up = halves(x.float() * weight_scale[0] * row_scale, True)
same(
    "dequant_swiglu_quant, static",
    y,
    round_int8(torch.nn.functional.silu(gate) * up / 0.1 + 5),
)

# ---- routing

x = torch.randn(6, 16).to(F16)
scores = x.float().softmax(-1)
order = scores.argsort(dim=-1, descending=True, stable=True)[:, :3]
finished = torch.tensor([False, True, False, False, False, False])
y, expert, row = torch_npu.npu_moe_gating_top_k_softmax(x.npu(), finished.npu(), k=3)
same("gating_top_k_softmax", y, scores.gather(1, order).to(F16))
same("gating_top_k_softmax, experts", expert, order.masked_fill(finished[:, None], 16).to(INT32))
same("gating_top_k_softmax, rows", row, torch.arange(18, dtype=INT32).view(3, 6).t())

x, bias = torch.randn(6, 64), torch.randn(64) / 4
for norm_type, mode, renorm in ((1, 1, 0), (0, 0, 0), (0, 1, 1)):
    scores = x.sigmoid() if norm_type == 1 else x.softmax(-1)
    merit = (scores + bias).view(6, 8, 8)
    of_group = merit.topk(2).values.sum(-1) if mode == 1 else merit.amax(-1)
    best = of_group.argsort(dim=-1, descending=True, stable=True)[:, :3]
    inside = torch.zeros(6, 8, dtype=torch.bool).scatter(1, best, True)
    merit = merit.masked_fill(~inside[..., None], float("-inf")).view(6, 64)
    chosen = merit.argsort(dim=-1, descending=True, stable=True)[:, :5]
    weights = scores.gather(1, chosen)
    if norm_type == 1 or renorm == 1:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    y, expert, out = torch_npu.npu_moe_gating_top_k(
        x.npu(),
        5,
        bias=bias.npu(),
        k_group=3,
        group_count=8,
        group_select_mode=mode,
        renorm=renorm,
        norm_type=norm_type,
        out_flag=True,
        routed_scaling_factor=2.5,
    )
    name = f"gating_top_k {norm_type} {mode} {renorm}"
    same(name, y, weights * 2.5)
    same(f"{name}, experts", expert, chosen.to(INT32))
    same(f"{name}, scores", out, scores)

tokens, experts = torch.randn(7, 32).to(BF16), torch.randint(0, 8, (7, 3), dtype=INT32)
row_idx = torch.arange(21, dtype=INT32).view(3, 7).t().contiguous()
expanded, back, sorted_experts = torch_npu.npu_moe_init_routing(
    tokens.npu(), row_idx.npu(), experts.npu(), 7
)
by_expert = experts.view(-1).argsort(stable=True)
source = row_idx.view(-1)[by_expert].long()
same("init_routing", expanded, tokens[source % 7])
same("init_routing, rows", back, source.argsort().to(INT32))
same("init_routing, experts", sorted_experts, experts.view(-1)[by_expert])

flat = experts.view(-1).long()
for first, last in ((0, 8), (2, 6)):
    inside = (flat >= first) & (flat < last)
    picked = torch.where(inside, flat, 99).argsort(stable=True)[: inside.sum()]
    counts = torch.bincount(flat[inside] - first, minlength=last - first)
    busy = counts.nonzero().view(-1)
    for kind, expected in (
        (0, counts.cumsum(0)),
        (1, counts),
        (2, torch.stack([busy + first, counts[busy]], 1)),
    ):
        expanded, back, got, scale = torch_npu.npu_moe_init_routing_v2(
            tokens.npu(),
            experts.npu(),
            active_num=21,
            expert_num=8,
            expert_tokens_num_type=kind,
            expert_tokens_num_flag=True,
            quant_mode=1,
            active_expert_range=[first, last],
            row_idx_type=kind % 2,
        )
        name, used = f"init_routing_v2 {first}-{last} {kind}", len(picked)
        values = tokens[picked // 3].float()
        step = values.abs().amax(1, keepdim=True) / 127
        same(name, expanded[:used], round_int8(values / step))
        same(f"{name}, scale", scale[:used], step.view(-1))
        same(f"{name}, counts", got[: len(expected)], expected)
        gather = torch.full((21,), -1).scatter(0, picked, torch.arange(used))
        same(
            f"{name}, rows",
            back[:used] if kind % 2 else back,
            (picked if kind % 2 else gather).to(INT32),
        )
expanded, back, *_ = torch_npu.npu_moe_init_routing_v2(
    tokens.npu(),
    experts.npu(),
    active_num=21,
    expert_capacity=2,
    expert_num=8,
    drop_pad_mode=1,
    expert_tokens_num_type=1,
    expert_tokens_num_flag=True,
    quant_mode=-1,
    active_expert_range=[0, 8],
)
filled, place = torch.zeros(8, 2, 32).to(BF16), torch.full((21,), -1)
seen = [0] * 8
for number, expert in enumerate(flat.tolist()):
    if seen[expert] < 2:
        filled[expert, seen[expert]] = tokens[number // 3]
        place[number] = expert * 2 + seen[expert]
        seen[expert] += 1
same("init_routing_v2, capacity", expanded, filled)
same("init_routing_v2, capacity, rows", back, place.to(INT32))

# ---- permute and back

order = experts.view(-1).argsort(stable=True)
permuted, sorted_indices = torch_npu.npu_moe_token_permute(tokens.npu(), experts.npu())
same("token_permute", permuted, tokens[order // 3])
same("token_permute, rows", sorted_indices, order.argsort().to(INT32))
dropped, _ = torch_npu.npu_moe_token_permute(tokens.npu(), experts.npu(), 15)
same("token_permute, the first 15", dropped, tokens[order // 3][:15])
probs = torch.rand(7, 3).to(BF16)
outputs = torch.randn(21, 32).to(BF16)
back = torch_npu.npu_moe_token_unpermute(outputs.npu(), sorted_indices, probs=probs.npu())
home = torch.empty(21, 32)
home[order] = outputs.float()
home = home.view(7, 3, 32) * probs.float()[..., None]
same("token_unpermute", back, (home[:, 0] + home[:, 1] + home[:, 2]).to(BF16))

skips = [torch.randn(7, 32) for _ in range(2)]
rows, scales, expert_bias = torch.randn(21, 32), torch.rand(7, 3), torch.randn(8, 32)
place = torch.randperm(21).to(INT32)
place[4] = -1
for mode in (1, 3):
    got = torch_npu.npu_moe_finalize_routing(
        rows.view(3, 7, 32).npu(),
        *npu([*skips, expert_bias, scales, place, experts]),
        drop_pad_mode=mode,
    )
    expected = skips[0] + skips[1]
    table = place.view(3, 7).t() if mode == 1 else place.view(7, 3)
    for k in range(3):
        row = torch.where((table[:, k] >= 0)[:, None], rows[table[:, k].clamp_min(0).long()], 0.0)
        expected = expected + scales[:, k, None] * (row + expert_bias[experts[:, k].long()])
    same(f"finalize_routing {mode}", got, expected)

# ---- norms

for dtype in (BF16, F16, F32):
    x, other, gamma = (torch.randn(*shape).to(dtype) for shape in ((5, 48), (5, 48), (48,)))
    y, inverse = torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-5)
    root = 1 / (x.float().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    same(f"rms_norm {dtype}", y, (x.float() * root * gamma.float()).to(dtype), ulps=2)
    same(f"rms_norm {dtype}, rstd", inverse, root, ulps=2)
    y, _, total = torch_npu.npu_add_rms_norm(x.npu(), other.npu(), gamma.npu(), 1e-5)
    both = x + other
    root = torch.rsqrt(both.float().square().mean(-1, keepdim=True) + 1e-5)
    same(f"add_rms_norm {dtype}, sum", total, both)
    same(f"add_rms_norm {dtype}", y, (both.float() * root).to(dtype) * gamma, ulps=2)

# ---- formats of storage: the data stay, the format is reported

weight = torch.randn(3, 40, 24).to(BF16)
nz = torch_npu.npu_format_cast(weight.npu(), 29)
assert torch_npu.get_npu_format(nz) == 29
same("NZ and back", torch_npu.npu_format_cast(nz, 2), weight)
x = torch.randn(8, 40).to(BF16)
got = torch_npu.npu_grouped_matmul(
    [x.npu()],
    [nz],
    group_list=torch.tensor([2, 2, 8]).npu(),
    split_item=2,
    group_type=0,
)[0]
parts = [x[:2].float() @ weight[0].float(), x[2:].float() @ weight[2].float()]
same("grouped, NZ weight", got, torch.cat(parts).to(BF16), ulps=2)

# ---- what is refused, is refused in that call, by name, and the device goes on


def refused(words, call):
    try:
        call()
        torch.npu.synchronize()
    except RuntimeError as error:
        assert words in str(error), (words, str(error))
    else:
        raise AssertionError(f"not refused: {words}")


packed = torch.ones(8, 1, dtype=INT32).npu()
refused("a dimension with an even size", lambda: torch_npu.npu_swiglu(torch.ones(3, 5).npu()))
refused("the virtual NPU has int8 x int8", lambda: torch_npu.npu_quant_matmul(
    packed[:2], packed, torch.ones(8).npu(), output_dtype=F16
))  # fmt: skip
refused("k=9 must be in [1, 8]", lambda: torch_npu.npu_moe_gating_top_k(torch.ones(2, 8).npu(), 9))
refused("npu_mm_all_reduce_base is not available", lambda: torch_npu.npu_mm_all_reduce_base(
    x.npu(), weight[0].npu(), "group"
))  # fmt: skip
assert (x.npu() + 1).sum().isfinite().item()
# What only the data tell ends the stream, as an exception of a kernel does.
beyond = torch.tensor([2, 2, 9]).npu()
refused("group_list reaches 9", lambda: torch_npu.npu_grouped_matmul(
    [x.npu()], [weight.npu()], group_list=beyond, split_item=2, group_type=0
))  # fmt: skip
print(f"{len(CHECKED)} results of the operators of an MoE layer equal plain torch")
