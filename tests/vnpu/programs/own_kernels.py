"""Our kernels behind the stock call: layers, graphs, groups, and what ends in an error.

usage: own_kernels.py CASE RANKS
"""

import ctypes
import os
import sys
import time

import ranks
import torch
import torch.distributed as dist
import torch_npu

import ascend_moe
from ascend_moe.reference import combine_world, dispatch_world

SIZE = int(sys.argv[2])
HIDDEN, TOPK, EXPERTS = 1536, 4, 2 * SIZE


def layer_calls(seed: int, hidden: int = HIDDEN, tokens: int = 6, quant_mode: int = 0):
    """The calls of one layer on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "x": torch.randn(tokens, hidden, generator=generator).bfloat16(),
            "expert_ids": torch.rand(tokens, EXPERTS, generator=generator)
            .argsort(dim=1)[:, :TOPK]
            .int(),
            "ep_world_size": SIZE,
            "ep_rank_id": rank,
            "moe_expert_num": EXPERTS,
            "quant_mode": quant_mode,
        }
        for rank in range(SIZE)
    ]


def weights_of(seed: int, tokens: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return [torch.rand(tokens, TOPK, generator=generator) for _ in range(SIZE)]


def wanted(calls: list[dict], weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """What the oracle says: experts that double their rows."""
    handles = dispatch_world(calls, product="A3", contract="cann-9.1")
    back = [
        {name: value for name, value in call.items() if name not in ("x", "quant_mode")}
        | {
            "expand_x": (handle.expand_x * 2).bfloat16(),
            "assist_info_for_combine": handle.assist_info_for_combine,
            "ep_send_counts": handle.ep_recv_counts,
            "expert_scales": weight,
        }
        for call, handle, weight in zip(calls, handles, weights, strict=True)
    ]
    return combine_world(back, product="A3", contract="cann-9.1")


def layer(rank: int, group: str, x, ids, weights, quant_mode: int = 0) -> torch.Tensor:
    where = (group, SIZE, rank, EXPERTS)
    rows, _, assist, _, counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(
        x, ids, *where, quant_mode=quant_mode
    )
    return torch_npu.npu_moe_distribute_combine_v2(
        (rows * 2).bfloat16(), ids, assist, counts, weights, *where
    )


def run_layer(rank: int, seed: int, group: str, **shape: int) -> None:
    calls, weights = layer_calls(seed, **shape), weights_of(seed, shape.get("tokens", 6))
    call = calls[rank]
    result = layer(
        rank,
        group,
        call["x"].npu(),
        call["expert_ids"].npu(),
        weights[rank].npu(),
        shape.get("quant_mode", 0),
    )
    torch.npu.synchronize()  # a copy that waits raises the code of a failure alone; its text goes to stderr
    assert torch.equal(result.cpu(), wanted(calls, weights)[rank]), f"layer {seed}"


def refused(call) -> str:
    """The text of the error in which a call must end, at the latest when the device is waited for.

    With the one that led to it: a capture that fails in the middle also fails to end.
    """
    try:
        call()
        torch.npu.synchronize()
    except RuntimeError as error:
        return " ".join(f"{error.__context__} {error}".split())
    raise AssertionError("no error")


def layers(rank: int) -> None:
    """Ten layers in flight, of different shapes, none waited for; then one at the size of a model."""
    shapes = [
        {"hidden": 1024 + 512 * (n % 3), "tokens": 3 + n, "quant_mode": n % 2 * 2}
        for n in range(10)
    ]
    planned = []
    for n, shape in enumerate(shapes):
        calls, weights = layer_calls(n, **shape), weights_of(n, shape["tokens"])
        call = calls[rank]
        result = layer(
            rank,
            ranks.GROUPS["ep"],
            call["x"].npu(),
            call["expert_ids"].npu(),
            weights[rank].npu(),
            shape["quant_mode"],
        )
        planned.append((result, wanted(calls, weights)[rank]))
    for n, (result, expected) in enumerate(planned):
        assert torch.equal(result.cpu(), expected), f"layer {n}"
    run_layer(rank, 77, ranks.GROUPS["ep"], hidden=7168, tokens=8, quant_mode=2)


def replays(rank: int) -> None:
    """A captured layer, replayed 100 times with inputs that change."""
    group = ranks.GROUPS["ep"]
    first = layer_calls(0)[rank]
    x, ids = first["x"].npu(), first["expert_ids"].npu()
    weights = weights_of(0)[rank].npu()
    layer(rank, group, x, ids, weights)
    torch.npu.synchronize()
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        captured = layer(rank, group, x, ids, weights)
    for seed in range(100):
        calls, scales = layer_calls(seed), weights_of(seed)
        x.copy_(calls[rank]["x"])
        ids.copy_(calls[rank]["expert_ids"])
        weights.copy_(scales[rank])
        graph.replay()
        torch.npu.synchronize()
        assert torch.equal(captured.cpu(), wanted(calls, scales)[rank]), f"replay {seed}"
    run_layer(rank, 200, group)  # eager again: the counters in device memory went on


def few_cores(rank: int) -> None:
    """A stream with a limit of cores, as torchair's limit_core_num sets one."""
    acl = ctypes.CDLL("libascendcl.so")
    stream = ctypes.c_void_p(torch.npu.current_stream().npu_stream)
    vector_cores = 1  # ACL_RT_DEV_RES_VECTOR_CORE
    assert acl.aclrtSetStreamResLimit(stream, vector_cores, 3) == 0
    assert acl.aclrtUseStreamResInCurrentThread(stream) == 0
    run_layer(rank, 0, ranks.GROUPS["ep"])


def first_call_captured(rank: int) -> None:
    """A group cannot be opened during a capture; afterwards all is well."""
    call = layer_calls(0)[rank]
    x, ids, weights = call["x"].npu(), call["expert_ids"].npu(), weights_of(0)[rank].npu()

    def capture() -> None:
        with torch.npu.graph(torch.npu.NPUGraph()):
            layer(rank, ranks.GROUPS["ep"], x, ids, weights)

    text = refused(capture)
    assert "run one eager call first" in text, text
    dist.barrier()
    run_layer(rank, 1, ranks.GROUPS["ep"])


def made_again(rank: int) -> None:
    """A group that is destroyed and made again, three times, over windows with old data."""
    for n in range(3):
        group = dist.new_group(list(range(SIZE)))
        name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
        run_layer(rank, n, name)
        run_layer(rank, n + 10, ranks.GROUPS["ep"])  # two groups in turn
        dist.barrier()
        dist.destroy_process_group(group)


def refused_launch(rank: int) -> None:
    """With ASCEND_MOE_VNPU_REFUSE_LAUNCH: an error of that call on this rank; nobody finds out by waiting."""
    call = layer_calls(0)[rank]
    where = (ranks.GROUPS["ep"], SIZE, rank, EXPERTS)
    x, ids = call["x"].npu(), call["expert_ids"].npu()
    text = refused(lambda: torch_npu.npu_moe_distribute_dispatch_v2(x, ids, *where))
    print(f"rank {rank}: {text}\n", end="", flush=True)  # one write: lines of ranks do not mix
    os._exit(0)


def older_error(rank: int) -> None:
    """An error that this thread met before is not taken for one of a launch."""
    acl = ctypes.CDLL("libascendcl.so")
    run_layer(rank, 0, ranks.GROUPS["ep"])
    assert acl.aclrtSetDevice(99) == 107001
    assert acl.aclrtPeekAtLastError(0) == 107001
    run_layer(rank, 1, ranks.GROUPS["ep"])


def late_for_the_hardware(rank: int) -> None:
    """The last rank comes later than any kernel may run: the others end before that, by themselves, and say so."""
    run_layer(rank, 0, ranks.GROUPS["ep"])
    torch.npu.synchronize()
    if rank == SIZE - 1:
        time.sleep(12)
        os._exit(0)
    text = refused(lambda: run_layer(rank, 1, ranks.GROUPS["ep"]))
    assert f"rank {SIZE - 1} did not come (time limit 4 s)" in text, text
    os._exit(0)


def after_a_warm_up(rank: int) -> None:
    """Collectives on the group that are still on their way when it is opened do not disturb our kernels.

    Opened through the store: HcclAllGather would queue behind them.
    """
    for seed in range(3):
        group = dist.new_group(list(range(SIZE)))
        name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
        calls = layer_calls(seed)
        x, ids = calls[rank]["x"].npu(), calls[rank]["expert_ids"].npu()
        for _ in range(3):
            dist.all_reduce(torch.ones(1 << 18).npu(), group=group, async_op=True)
        out = ascend_moe.npu_moe_distribute_dispatch_v2(x, ids, name, SIZE, rank, EXPERTS)
        rows = dispatch_world(calls, product="A3", contract="cann-9.1")[rank]
        received = int(rows.expert_token_nums.sum())
        assert torch.equal(out[0].cpu()[:received], rows.expand_x[:received]), f"group {seed}"
        run_layer(rank, seed, name)


def two_devices(rank: int) -> None:
    """Two groups of one process on two devices: the second does not disturb the first.

    HCCL knows a name on the device of its communicator alone, so on the other device the first group seems gone.
    """
    hccl = ctypes.CDLL("libhccl.so")
    store = dist.distributed_c10d._get_default_store()
    names = []
    for device in (rank, SIZE + rank):
        torch_npu.npu.set_device(device)
        torch.zeros(1).npu()
        root = ctypes.create_string_buffer(4108)
        key = f"root of {device - rank}"
        if rank == 0:
            assert hccl.HcclGetRootInfo(root) == 0
            store.set(key, root.raw)
        root.raw = store.get(key)
        communicator, name = ctypes.c_void_p(), ctypes.create_string_buffer(128)
        assert hccl.HcclCommInitRootInfo(SIZE, root, rank, ctypes.byref(communicator)) == 0
        assert hccl.HcclGetCommName(communicator, name) == 0
        names.append((device, name.value.decode()))
    for seed in range(4):
        device, name = names[seed % 2]
        torch_npu.npu.set_device(device)
        run_layer(rank, seed, name)
        torch.npu.synchronize()
    torch_npu.npu.set_device(rank)


def foreign_use_is_seen_at_rest(rank: int) -> None:
    """The host looks once a second whether the buffer is still ours: no launch finds out, and none is needed."""
    group = dist.new_group(list(range(SIZE)))
    name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
    run_layer(rank, 1, name)
    torch.npu.synchronize()
    dist.all_reduce(torch.ones(4096).npu(), group=group)
    torch.npu.synchronize()
    time.sleep(1.1)
    text = refused(lambda: run_layer(rank, 2, name))
    assert "between two calls on rank" in text, text
    assert "somebody else has written to the HCCL buffer" in text, text
    run_layer(rank, 0, ranks.GROUPS["ep"])  # no stream has stopped


def foreign_use(rank: int) -> None:
    """An ordinary collective in the EP group overwrites the window: the next call says so."""
    run_layer(rank, 0, ranks.GROUPS["ep"])
    torch.npu.synchronize()
    dist.barrier()
    group = dist.new_group(list(range(SIZE)))
    name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
    run_layer(rank, 1, name)
    torch.npu.synchronize()
    dist.all_reduce(torch.ones(4096).npu(), group=group)
    torch.npu.synchronize()
    text = refused(lambda: run_layer(rank, 2, name))
    assert "somebody else has written to the HCCL buffer" in text, text
    os._exit(0)  # the stream has stopped


def the_choice_stands(rank: int) -> None:
    """What our kernels cannot serve is an error on a group that runs them, and so is TP all of a sudden."""
    run_layer(rank, 0, ranks.GROUPS["ep"])
    call = layer_calls(1)[rank]
    where = (ranks.GROUPS["ep"], SIZE, rank, EXPERTS)
    x, ids = call["x"].npu(), call["expert_ids"].npu()
    for given, text in (
        (
            {"comm_alg": "hierarchy", "expert_scales": torch.ones(6, TOPK).npu()},
            "runs our kernels of full mesh since its first call",
        ),
        ({"group_tp": "tp", "tp_world_size": 2, "tp_rank_id": 0}, "runs our kernels without TP"),
    ):
        said = refused(
            lambda given=given: torch_npu.npu_moe_distribute_dispatch_v2(x, ids, *where, **given)
        )
        assert text in said, said
    run_layer(rank, 2, ranks.GROUPS["ep"])


if __name__ == "__main__":
    ranks.run(SIZE, globals()[sys.argv[1]])
    print(f"{sys.argv[1]} right on {SIZE} ranks")
