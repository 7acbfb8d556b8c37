"""The simulator's number formats against torch: rounding, denormals, infinities."""

import pytest
import torch

from kernels.proof.simulator import Schedule, Simulator

pytestmark = pytest.mark.usefixtures("proof_library")


def through(kernel, values):
    with Simulator(Schedule()) as simulator:
        source, target = simulator.put(0, values, "in"), simulator.alloc(0, 1024, "out")
        simulator.launch(0, kernel, [source, target], 1)
        assert simulator.run()
        assert not simulator.findings
        return simulator.get(target, torch.empty(256))[0]


def bit_patterns(seed):
    """Floats of every exponent, halfway cases and special values among them."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (256,), generator=generator)
    bits[:64] = bits[:64] & ~0xFFFF | 0x8000  # halfway between two bfloat16
    bits[64:128] = bits[64:128] & ~0x1FFF | 0x1000  # and between two float16
    exponents = torch.randint(96, 145, (64,), generator=generator)
    bits[64:128] = (bits[64:128] & 0x007FFFFF) | (
        exponents << 23
    )  # around float16's range and denormals
    values = bits.int().view(torch.float32)
    values[-6:] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 65520.0, 5.9e-8])
    return values.where(~values.isnan(), torch.zeros(()))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [("mini_through_bfloat16", torch.bfloat16), ("mini_through_half", torch.float16)],
)
def test_rounding_is_half_even(kernel, dtype, seed):
    values = bit_patterns(seed)
    found, expected = through(kernel, values), values.to(dtype).float()
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize(
    ("kernel", "rounded"),
    [("mini_through_int32", torch.round), ("mini_through_int32_floor", torch.floor)],
)
def test_integers_round_and_saturate(kernel, rounded):
    values = torch.randn(256, generator=torch.Generator().manual_seed(1)) * 1000
    values[:8] = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.5, -127.5])
    assert torch.equal(through(kernel, values), rounded(values) + 0.0)
    values[:4] = torch.tensor([3e9, -3e9, torch.inf, torch.nan])
    assert through(kernel, values)[:4].tolist() == [2**31, -(2**31), 2**31, 0]
