"""A whole MoE layer on 4 ranks, in bfloat16 and in W8A8, against the same layer in plain torch.

On 4 NPUs:            python examples/layer.py
On the virtual NPU:   ascend-moe run examples/layer.py

Gating chooses experts, dispatch brings the tokens to them, each rank multiplies the rows of its experts,
combine brings the outputs home, adds them by weight, and adds the shared expert, which every rank
computes for its own tokens. In W8A8 weights and rows are int8 with a scale per output channel and per
row; dispatch quantises before it sends.

With --install every call is checked against the documented constraints first.
"""

from dataclasses import dataclass

import torch
import torch_npu
from deployment import join, launch, leave

RANKS = 4
EXPERTS = 8  # two per rank
TOKENS = 16
HIDDEN = 1024
INNER = 256  # of an expert; its first product is twice as wide, gate and up
TOPK = 3
BF16, F32, INT8, INT32 = torch.bfloat16, torch.float32, torch.int8, torch.int32


@dataclass
class Experts:
    """Weights of a number of experts: up (E, H, 2 * INNER), down (E, INNER, H), and their scales in W8A8."""

    up: torch.Tensor
    down: torch.Tensor
    up_scale: torch.Tensor | None = None  # (E, 2 * INNER)
    down_scale: torch.Tensor | None = None  # (E, H)

    def part(self, first: int, last: int) -> "Experts":
        """Those of one rank."""
        values = (self.up, self.down, self.up_scale, self.down_scale)
        return Experts(*(None if value is None else value[first:last] for value in values))

    def npu(self) -> "Experts":
        """The same on the device."""
        values = (self.up, self.down, self.up_scale, self.down_scale)
        return Experts(*(None if value is None else value.npu() for value in values))


def per_channel(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 and a scale per output channel."""
    scale = weight.abs().amax(-2, keepdim=True) / 127
    return (weight / scale).round().to(INT8), scale.squeeze(-2)


def model(int8: bool) -> tuple[torch.Tensor, Experts, Experts]:
    """The gate (E, H), all experts and the shared one; the same on every rank."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-2] ** 0.5

    gate = random(HIDDEN, EXPERTS).t().contiguous()
    families = []
    for count in (EXPERTS, 1):
        up, down = random(count, HIDDEN, 2 * INNER), random(count, INNER, HIDDEN)
        if int8:
            (up, up_scale), (down, down_scale) = per_channel(up), per_channel(down)
            families.append(Experts(up, down, up_scale, down_scale.to(BF16)))
        else:
            families.append(Experts(up.to(BF16), down.to(BF16)))
    return gate, families[0], families[1]


def tokens(rank: int) -> torch.Tensor:
    """X (BS, H) of a rank."""
    generator = torch.Generator().manual_seed(100 + rank)
    return torch.randn(TOKENS, HIDDEN, generator=generator).to(BF16)


# ---- the layer on the device


def grouped(x, weight, counts, **options) -> torch.Tensor:
    """Row group g of x times weight g."""
    return torch_npu.npu_grouped_matmul(
        [x],
        [weight],
        group_list=counts,
        group_list_type=1,
        group_type=0,
        split_item=2,
        **options,
    )[0]


def run_experts(rows, scales, counts, experts: Experts) -> torch.Tensor:
    """The experts of this rank on the rows that dispatch delivered, `counts` of each."""
    if experts.up_scale is None:
        active = torch_npu.npu_swiglu(grouped(rows, experts.up, counts))
        return grouped(active, experts.down, counts)
    raw = grouped(rows, experts.up, counts, output_dtype=INT32)
    active, active_scales = torch_npu.npu_dequant_swiglu_quant(
        raw,
        weight_scale=experts.up_scale,
        activation_scale=scales,
        group_index=counts,
        activate_left=True,
        quant_mode=1,
    )
    return grouped(
        active,
        experts.down,
        counts,
        scale=[experts.down_scale],
        per_token_scale=[active_scales],
        output_dtype=BF16,
    )


def run_shared(x, shared: Experts) -> torch.Tensor:
    """The shared expert on this rank's own tokens."""
    up, down = shared.up[0], shared.down[0]
    if shared.up_scale is None:
        return torch_npu.npu_swiglu(x @ up) @ down
    rows, scales = torch_npu.npu_dynamic_quant(x)
    wide = torch_npu.npu_quant_matmul(
        rows, up, shared.up_scale[0], pertoken_scale=scales, output_dtype=BF16
    )
    rows, scales = torch_npu.npu_dynamic_quant(torch_npu.npu_swiglu(wide))
    return torch_npu.npu_quant_matmul(
        rows, down, shared.down_scale[0], pertoken_scale=scales, output_dtype=BF16
    )


def layer(x, gate, local: Experts, shared: Experts, attributes) -> torch.Tensor:
    """x (BS, H) of this rank through the whole layer."""
    weights, ids, _ = torch_npu.npu_moe_gating_top_k_softmax(x.float() @ gate.t(), k=TOPK)
    rows, scales, assist_info, counts, ep_counts, _, expand_scales = (
        torch_npu.npu_moe_distribute_dispatch_v2(
            x=x,
            expert_ids=ids,
            quant_mode=0 if local.up_scale is None else 2,
            expert_token_nums_type=1,
            **attributes,
        )
    )
    return torch_npu.npu_moe_distribute_combine_v2(
        expand_x=run_experts(rows, scales, counts, local),
        expert_ids=ids,
        assist_info_for_combine=assist_info,
        ep_send_counts=ep_counts,
        expert_scales=weights,
        expand_scales=expand_scales,
        shared_expert_x=run_shared(x, shared),
        **attributes,
    )


# ---- the same in plain torch


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 rows and a scale for each, with the two divisions of dispatch and npu_dynamic_quant."""
    factor = torch.tensor(127.0) / rows.abs().amax(1, keepdim=True)
    return (rows * factor).round(), torch.tensor(1.0) / factor


def quantise_active(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as npu_dequant_swiglu_quant does it."""
    scale = rows.abs().amax(1, keepdim=True) * torch.tensor(1 / 127, dtype=F32)
    return (rows / scale).round(), scale


def plain_expert(x: torch.Tensor, experts: Experts, expert: int) -> torch.Tensor:
    """One expert on rows x, rounded where the operators round."""
    up, down = experts.up[expert].float(), experts.down[expert].float()
    shared = len(experts.up) == 1
    if experts.up_scale is None:
        gate, value = (x.float() @ up).to(BF16).float().chunk(2, 1)
        active = (torch.nn.functional.silu(gate) * value).to(BF16)
        return (active.float() @ down).to(BF16)
    rows, scale = quantise(x.float())
    wide = rows @ up * experts.up_scale[expert] * scale
    gate, value = (wide.to(BF16).float() if shared else wide).chunk(2, 1)
    active = torch.nn.functional.silu(gate) * value
    rows, scale = quantise(active.to(BF16).float()) if shared else quantise_active(active)
    return (rows @ down * experts.down_scale[expert].float() * scale).to(BF16)


def plain_layer(x, gate, experts: Experts, shared: Experts) -> torch.Tensor:
    """What `layer` must return: no ranks, no groups."""
    weights, ids = (x.float() @ gate.t()).softmax(1).topk(TOPK, 1)
    total = torch.zeros(TOKENS, HIDDEN)
    for slot in range(TOPK):
        for token, expert in enumerate(ids[:, slot].tolist()):
            row = plain_expert(x[token : token + 1], experts, expert)[0]
            total[token] += row.float() * weights[token, slot]
    return (total + plain_expert(x, shared, 0).float()).to(BF16)


def check(rank: int, name: str, output: torch.Tensor, expected: torch.Tensor) -> None:
    """Sums in another order may end on the other side of a rounding: one of bfloat16, or one of int8."""
    torch.npu.synchronize()
    error = (output.cpu().float() - expected.float()).abs().max() / expected.float().abs().max()
    if not error <= 2**-7:
        raise AssertionError(f"rank {rank}, {name}: wrong by {error:.4f} of the largest value")
    print(
        f"rank {rank}, {name}: the layer equals plain torch (within {error:.5f})\n",
        end="",
        flush=True,
    )


def run_rank(rank: int, port: int, install: bool) -> None:
    """One rank of the deployment."""
    if install:
        import ascend_moe

        ascend_moe.install()
    attributes = {
        "group_ep": join(rank, port, RANKS),
        "ep_world_size": RANKS,
        "ep_rank_id": rank,
        "moe_expert_num": EXPERTS,
        "global_bs": TOKENS * RANKS,
    }
    own = EXPERTS // RANKS
    x = tokens(rank)
    for name, int8 in (("bfloat16", False), ("W8A8", True)):
        gate, experts, shared = model(int8)
        local = experts.part(rank * own, (rank + 1) * own).npu()
        output = layer(x.npu(), gate.npu(), local, shared.npu(), attributes)
        check(rank, name, output, plain_layer(x, gate, experts, shared))
    leave()


if __name__ == "__main__":
    launch(run_rank, RANKS)
