"""Tensors with strides become contiguous."""

import pytest
import torch

from kernels.proof.group import Packing, words
from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")


@pytest.mark.parametrize(
    ("shape", "strides", "dtype"),
    [
        ((3, 5, 7), (50, 9, 1), torch.bfloat16),  # rows of odd length, apart
        ((2, 3, 40), (1, 2, 6), torch.int8),  # the innermost dimension is the outermost in memory
        ((4, 2, 1500), (0, 3000, 2), torch.float32),  # more elements than one strided copy takes
        ((1, 6, 9), (0, 4, 0), torch.int32),  # an element that repeats
        ((1, 3, 20000), (0, 20001, 1), torch.bfloat16),  # rows longer than a piece
    ],
)
@pytest.mark.parametrize("cores", [1, 5])
def test_pack(shape, strides, dtype, cores):
    span = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    raw = torch.randint(-128, 128, (span,)).to(dtype)
    size = raw.element_size()
    packing = Packing(size=shape, element_bytes=size, stride=tuple(step * size for step in strides))
    expected = raw.as_strided(shape, strides).contiguous()
    with Simulator(Schedule(seed=cores)) as simulator:
        target = simulator.alloc(0, expected.numel() * size, "target")
        source = simulator.put(0, raw, "source", offset=size)
        simulator.launch(0, "ascend_moe_pack", [source, target, *words(packing)], cores)
        assert simulator.run()
        assert simulator.findings == []
        content, written = simulator.get(target, expected)
    assert written.all()
    assert torch.equal(content, expected)
