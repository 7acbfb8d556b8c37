"""Assorted aten operators: npu and CPU tensors must give the same."""

import torch
import torch.nn.functional as F
import torch_npu  # noqa: F401

torch.manual_seed(0)
a, b = torch.randn(6, 8), torch.randn(6, 8)
indices = torch.tensor([4, 0, 2])
half = torch.randn(6, 8).to(torch.bfloat16)

CALCULATIONS = {
    "add": lambda d: a.to(d) + b.to(d) * 2 - 1,
    "matmul": lambda d: a.to(d) @ b.to(d).t(),
    "softmax": lambda d: a.to(d).softmax(-1).sum(0),
    "cat, topk": lambda d: torch.cat([a.to(d), b.to(d)]).topk(3, dim=0).values,
    "index": lambda d: a.to(d)[indices.to(d)],
    "index_put": lambda d: a.to(d).index_put((indices.to(d),), b.to(d)[:3]),
    "in place, slice": lambda d: a.to(d).clone()[::2, 1:].mul_(3).add_(1),
    "where, masked": lambda d: torch.where(a.to(d) > 0, a.to(d), b.to(d)).masked_fill(
        b.to(d) > 1, 7.0
    ),
    "nonzero": lambda d: (a.to(d) > 0.5).nonzero(),
    "unique": lambda d: torch.unique(torch.tensor([3, 1, 3, 2]).to(d)),
    "masked_select": lambda d: a.to(d).masked_select(b.to(d) > 0),
    "bincount": lambda d: torch.bincount(torch.tensor([1, 1, 3]).to(d)),
    "one_hot": lambda d: F.one_hot(indices.to(d), 6),
    "sort": lambda d: a.to(d).sort(dim=1).indices,
    "cumsum": lambda d: torch.arange(10, device=d).cumsum(0),
    "arange, full": lambda d: (
        torch.arange(8, device=d, dtype=torch.float32) * torch.full((8,), 3.0, device=d)
    ),
    "bfloat16": lambda d: (half.to(d) * 3 + 1).float(),
    "casts": lambda d: a.to(d).to(torch.float16).to(torch.int32).to(torch.int8).to(torch.float32),
    "transposed copy": lambda d: a.to(d).t().contiguous().view(-1),
    "broadcast copy": lambda d: torch.zeros(6, 8, device=d).copy_(torch.arange(8.0).to(d)),
    "layer_norm": lambda d: F.layer_norm(a.to(d), (8,)),
    "gelu, linear": lambda d: F.gelu(F.linear(a.to(d), b.to(d))),
    "swiglu": lambda d: F.silu(a.to(d)[:, :4]) * a.to(d)[:, 4:],
    "attention": lambda d: F.scaled_dot_product_attention(
        a.to(d)[None], b.to(d)[None], a.to(d)[None]
    ),
    "out=": lambda d: torch.add(a.to(d), b.to(d), out=torch.empty(0, device=d)),
    "std, max": lambda d: torch.stack([a.to(d).std(), a.to(d).max(), b.to(d).abs().mean()]),
}

wrong = []
for name, calculate in CALCULATIONS.items():
    expected, got = calculate("cpu"), calculate("npu")
    assert got.device.type == "npu", name
    if got.dtype != expected.dtype or not torch.equal(got.cpu(), expected):
        wrong.append(name)
assert not wrong, wrong

# Autograd and an optimizer step.
layer = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16))
twin = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16)).npu()
twin.load_state_dict(layer.state_dict())
for module, device in ((layer, "cpu"), (twin, "npu")):
    module(a.to(device)).square().mean().backward()
    torch.optim.AdamW(module.parameters(), lr=0.1).step()
for ours, theirs in zip(twin.parameters(), layer.parameters(), strict=True):
    torch.testing.assert_close(ours.cpu(), theirs)

# Devices, streams, events.
assert torch.npu.device_count() == 16
assert torch.ones(2, device="npu:3").to("npu:1").device.index == 1
side = torch.npu.Stream()
with torch.npu.stream(side):
    start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
    start.record()
    doubled = a.npu() * 2
    end.record()
torch.npu.current_stream().wait_event(end)
assert torch.equal((doubled + 0).cpu(), a * 2)
assert start.elapsed_time(end) >= 0
print(f"{len(CALCULATIONS)} calculations equal on {torch.npu.get_device_name(0)}")
