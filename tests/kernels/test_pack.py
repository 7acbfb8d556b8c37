"""Packing of strided tensors, against torch's own copy."""

from random import Random

import pytest
import torch

from kernels.proof.simulator import Schedule
from kernels.proof.small_cases import PackCase

pytestmark = pytest.mark.usefixtures("proof_library")


def values(*shape, dtype):
    return torch.randint(-100, 100, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.float32, torch.int64])
@pytest.mark.parametrize(
    "view",
    [
        lambda whole: whole[:, :1031],
        lambda whole: whole[1:, 3:],
        lambda whole: whole[::2, ::3],
        lambda whole: whole.t(),
        lambda whole: whole[0, ::7],
        lambda whole: whole[:, 0],
        lambda whole: whole[:2].view(2, 41, 50)[:, ::2, 1:],
        lambda whole: whole[:1, :8].expand(5, 8),
        lambda whole: whole[:, :1].expand(6, 70),
    ],
    ids=[
        "rows",
        "offset",
        "steps",
        "transposed",
        "vector",
        "column",
        "3-D",
        "row again",
        "element again",
    ],
)
def test_views_become_what_torch_makes_of_them(view, dtype):
    tensor = view(values(6, 2050, dtype=dtype))
    for cores in (1, 3, 48):
        assert PackCase(tensor, cores).run(Schedule(seed=cores)).problems == []


def test_rows_longer_than_a_piece():
    assert PackCase(values(3, 40_000, dtype=torch.float16)[:, 1:], 2).run(Schedule()).problems == []
    assert PackCase(values(2, 9000, dtype=torch.int64)[:, ::4], 2).run(Schedule()).problems == []


def test_random_views():
    random = Random(5)
    for seed in range(60):
        shape = [random.randint(1, 9), random.randint(1, 40), random.randint(1, 120)]
        whole = values(*shape, dtype=random.choice((torch.int8, torch.int32)))
        tensor = whole.permute(random.sample(range(3), 3))
        tensor = tensor[:, random.randrange(tensor.shape[1]) :, :: random.randint(1, 4)]
        case = PackCase(tensor, random.choice((1, 2, 7)))
        assert case.run(Schedule(seed=seed)).problems == [], (tensor.shape, tensor.stride())
