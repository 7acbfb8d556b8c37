"""What a device keeps beside tensors: default, generator, registered host memory. A refused call harms none of it."""

import ctypes
import mmap
import sys

import torch
import torch_npu
from device_calls import REFUSED, address_of, call, refusal

PINNED, MAPPED = 0x10000000, 2


def streams_before_the_first_use() -> None:
    """torch_npu gives aclInit a default device, so this thread needs none of its own."""
    if not hasattr(torch_npu.npu, "npurt"):  # torch_npu 2.10 and older
        assert torch.npu.Stream().npu_stream
        return
    stream = ctypes.c_void_p()
    assert torch_npu.npu.npurt().npuStreamCreate(ctypes.addressof(stream)) == 0
    assert stream.value
    assert torch_npu.npu.npurt().npuStreamDestroy(stream.value) == 0


DRAWS = {
    "rand": lambda: torch.rand(64, device="npu"),
    "randn": lambda: torch.randn(64, device="npu"),
    "randn_like": lambda: torch.randn_like(torch.empty(64).npu()),
    "randint": lambda: torch.randint(0, 1000, (64,), device="npu"),
    "randperm": lambda: torch.randperm(64, device="npu"),
    "uniform_": lambda: torch.zeros(64).npu().uniform_(),
    "exponential_": lambda: torch.empty(64).npu().exponential_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((64,), 0.5).npu()),
    "multinomial": lambda: torch.multinomial(torch.ones(64).npu(), 32),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(64).npu(), 0.5),
    "native_dropout": lambda: torch.native_dropout(torch.ones(64).npu(), 0.5, True)[0],
}


def seeds_decide() -> None:
    host_state = torch.get_rng_state()
    for name, draw in DRAWS.items():
        drawn = []
        for seed in (2, 2, 3):
            torch.npu.manual_seed(seed)
            drawn.append((draw().cpu(), draw().cpu()))
        (first, second), again, other = drawn
        assert torch.equal(first, again[0]), name
        assert torch.equal(second, again[1]), name
        assert not torch.equal(first, second), f"{name} does not move on"
        assert not torch.equal(first, other[0]), f"{name} ignores its seed"
    assert torch.equal(host_state, torch.get_rng_state()), "the host's generator was used"
    torch.npu.manual_seed(5)
    state = torch.npu.get_rng_state()
    before = torch.randn(4, device="npu").cpu()
    torch.npu.set_rng_state(state)
    assert torch.equal(before, torch.randn(4, device="npu").cpu())
    own = torch.Generator(device="npu").manual_seed(5)
    assert torch.equal(before, torch.randn(4, device="npu", generator=own).cpu())
    told = refusal(lambda: torch.empty(4).npu().normal_(generator=torch.Generator()))
    assert "Expected a 'npu' device type for generator" in told, told
    # The distributions are those of torch's own kernels; the seeds must not make them worse.
    many = torch.cat([torch.randn(100, device="npu") for _ in range(100)]).cpu()
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05
    assert torch.equal(torch.randperm(64, device="npu").cpu().sort().values, torch.arange(64))


def graphs_draw_anew() -> None:
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        drawn = torch.randn(8, device="npu")
    # torch_npu 2.8 sets seed and offset on the stream of the capture, just before it, and lets no
    # replay wait for that (Ascend/pytorch f3ecfe4a, NPUGeneratorImpl.cpp:180).
    torch.npu.synchronize()
    sequences = []
    for _ in range(2):
        torch.npu.manual_seed(7)
        sequence = []
        for _ in range(2):
            graph.replay()
            sequence.append(drawn.cpu().clone())
        sequences.append(torch.stack(sequence))
    assert torch.equal(*sequences)
    assert not torch.equal(*sequences[0])


def refused_calls_harm_nothing() -> None:
    integers = torch.arange(4, dtype=torch.int32).npu()
    large = torch.arange(1 << 16, dtype=torch.int32).npu()
    refused = (
        (lambda: torch.frac(integers), "aten::frac: \"frac_cpu\" not implemented for 'Int'"),
        (lambda: torch.frac(large), "not implemented for 'Int'"),
        (lambda: torch._foreach_frac([integers]), "not implemented for 'Int'"),
        (lambda: torch_npu.fast_gelu(integers.float()), "operator FastGelu is not available"),
        (
            lambda: torch_npu.npu_gelu(integers.half(), approximate="none"),
            "operator npu::npu_gelu is not available",
        ),
    )
    for operator, text in refused:
        told = refusal(operator)
        assert text in told, told
        assert "[virtual NPU]" in told, told
        assert torch.equal((integers + 1).cpu(), torch.arange(1, 5, dtype=torch.int32))


def host_memory_is_registered() -> None:
    torch.ones(1).npu()
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = address_of(pages)
    for flag, size, at in (
        (0, 4096, 0),
        (1, 4096, 0),
        (PINNED, 0, 0),
        (4, 4096, 0),
        (MAPPED, 8, 1),
    ):
        assert call("aclrtHostRegisterV2", start + at, size, ctypes.c_uint32(flag)) != 0
    assert call("aclrtHostRegisterV2", start, 4096, ctypes.c_uint32(PINNED | MAPPED)) == 0
    assert call("aclrtHostRegisterV2", start + 8, 16, ctypes.c_uint32(PINNED)) == 507910
    device = ctypes.c_void_p()
    assert call("aclrtHostGetDevicePointer", start + 8, ctypes.byref(device), 0) == REFUSED
    assert call("aclrtHostGetDevicePointer", start, ctypes.byref(device), 0) == 0
    pages[:4] = b"host"
    kernel = ctypes.CDLL("libascendcl.so")._ZN7standin11HostAddressEPKvm  # what a kernel may read
    kernel.restype = ctypes.c_void_p
    assert ctypes.string_at(kernel(device, ctypes.c_size_t(4)), 4) == b"host"
    copy = ctypes.create_string_buffer(4)
    device_to_host = 2
    assert call("aclrtMemcpy", copy, 4, device, 4, device_to_host) == REFUSED  # kernels only
    assert call("aclrtHostUnregister", start) == 0
    assert kernel(device, ctypes.c_size_t(4)) is None
    assert call("aclrtHostUnregister", start) == 507911


for part in (
    streams_before_the_first_use,
    seeds_decide,
    graphs_draw_anew,
    refused_calls_harm_nothing,
    host_memory_is_registered,
):
    part()
    print(f"{part.__name__}: right", flush=True)
sys.exit(0)
