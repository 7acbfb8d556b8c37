"""torch.compile of dispatch, an expert and combine with torchair, in one of its modes.

First with torch_npu's own functions, then with ours in their place: illegal calls end while they are traced, on all
ranks.

usage: compiled.py max-autotune | reduce-overhead | npugraph_ex
"""

import sys
import time

import ranks
import torch
import torch.distributed as dist
import torch_npu
import torchair
from torch._dynamo.utils import counters

import ascend_moe
from ascend_moe.vnpu import torchair_native

SIZE, MODE = 2, sys.argv[1]
LATE_RANK, LATE_S = 1, 0.2


class Layer(torch.nn.Module):
    def __init__(self, rank: int, **changes):
        super().__init__()
        self.group = {
            "group_ep": ranks.GROUPS["ep"],
            "ep_world_size": SIZE,
            "ep_rank_id": rank,
            "moe_expert_num": 4,
        } | changes

    def forward(self, x, ids, weights):
        rows, _, assist, _, counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(
            x, ids, quant_mode=0, **self.group
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            rows * 2.0, ids, assist, counts, weights, **self.group
        )


class Measured(Layer):
    """With performance_info, a tensor that both operators change and no schema says so of."""

    def forward(self, x, ids, weights, waits):
        rows, _, assist, _, counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(
            x, ids, quant_mode=0, performance_info=waits, **self.group
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            rows * 2.0, ids, assist, counts, weights, performance_info=waits, **self.group
        )


BOTH = {"global_bs": 8 * SIZE, "zero_expert_num": 1, "copy_expert_num": 1, "const_expert_num": 1}
DISPATCH = {"quant_mode": 2, "expert_token_nums_type": 0, "comm_alg": "fullmesh_v1"}
COMBINE = {"comm_quant_mode": 2, "comm_alg": "fullmesh_v1"}


class EveryOption(torch.nn.Module):
    """Every optional input that A3 takes in one call, every attribute away from its default."""

    def __init__(self, rank: int):
        super().__init__()
        self.group = Layer(rank).group | BOTH

    def forward(self, x, ids, scales, mask, weights, shared, alpha_1, alpha_2, v):
        rows, _, assist, _, counts, _, expand_scales = torch_npu.npu_moe_distribute_dispatch_v2(
            x,
            ids,
            scales=scales,
            x_active_mask=mask,
            expert_scales=weights,
            **DISPATCH,
            **self.group,
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            rows.to(torch.bfloat16),
            ids,
            assist,
            counts,
            weights,
            x_active_mask=mask,
            expand_scales=expand_scales,
            shared_expert_x=shared,
            ori_x=x,
            const_expert_alpha_1=alpha_1,
            const_expert_alpha_2=alpha_2,
            const_expert_v=v,
            **COMBINE,
            **self.group,
        )


def every_input(rank: int) -> list[torch.Tensor]:
    """In the order of EveryOption.forward."""
    generator = torch.Generator().manual_seed(100 + rank)
    same = torch.Generator().manual_seed(99)
    x = torch.randn(8, 1024, generator=generator).bfloat16()
    ids = torch.rand(8, 7, generator=generator).argsort(dim=1)[:, :3].int()
    weights = torch.rand(8, 3, generator=generator)
    scales = torch.rand(4, 1024, generator=same) + 0.5
    mask = torch.arange(8) < 6
    constants = [torch.randn(1, 1024, generator=same).mul(0.05).bfloat16() for _ in range(3)]
    return [x, ids, scales, mask, weights, torch.ones(8, 1024).bfloat16(), *constants]


def check_every_option(rank: int) -> None:
    """Every input and attribute by its name in the GE prototypes, written out here."""
    layer, tensors = EveryOption(rank), [tensor.npu() for tensor in every_input(rank)]
    names = ["x", "ids", "scales", "mask", "weights", "shared", "alpha_1", "alpha_2", "v"]
    addresses = [tensor.data_ptr() for tensor in tensors]
    order: list[str] = []  # that of the graph's inputs is dynamo's business
    run_graph = native().run_graph

    def recording(graph, inputs):
        order[:] = [names[addresses.index(tensor.data_ptr())] for tensor in inputs]
        return run_graph(graph, inputs)

    native().run_graph = recording
    compiled = torch.compile(layer, backend=backend(), dynamic=False, fullgraph=True)
    assert torch.equal(compiled(*tensors)[:6].cpu(), layer(*tensors)[:6].cpu())
    native().run_graph = run_graph
    graph = loaded_graphs()[-1]
    nodes = {op.type: op for op in graph.op}
    dispatch, combine = nodes["MoeDistributeDispatchV2"], nodes["MoeDistributeCombineV2"]
    given = {op.name: order[op.attr["index"].i] for op in graph.op if op.type == "Data"}
    given |= {dispatch.name: "dispatch", nodes["Cast"].name: "rows"}

    def sources(op) -> dict[str, str]:
        named = {}
        for desc, source in zip(op.input_desc, op.input, strict=True):
            name, _, output = source.partition(":")
            if source:
                named[desc.name] = given[name] + (output if name == dispatch.name else "")
        return named

    assert sources(dispatch) == {
        "x": "x",
        "expert_ids": "ids",
        "scales": "scales",
        "x_active_mask": "mask",
        "expert_scales": "weights",
    }
    assert sources(combine) == {
        "expand_x": "rows",
        "expert_ids": "ids",
        "assist_info_for_combine": "dispatch2",
        "ep_send_counts": "dispatch4",
        "expert_scales": "weights",
        "x_active_mask": "mask",
        "expand_scales": "dispatch6",
        "shared_expert_x": "shared",
        "ori_x": "x",
        "const_expert_alpha_1": "alpha_1",
        "const_expert_alpha_2": "alpha_2",
        "const_expert_v": "v",
    }
    for op, own in ((dispatch, DISPATCH), (combine, COMBINE)):
        for name, value in (layer.group | own).items():
            got = op.attr[name].s.decode() if isinstance(value, str) else op.attr[name].i
            assert got == value, (op.type, name, got)


def native():
    """torchair_native as torchair sees it: in this process it is loaded by its file, under another name."""
    return sys.modules.get("ascend_moe_vnpu_torchair_native", torchair_native)


def loaded_graphs() -> list:
    return native().loaded_graphs


def backend():
    if MODE == "npugraph_ex":
        return MODE
    config = torchair.CompilerConfig()
    config.mode = MODE
    return torchair.get_npu_backend(compiler_config=config)


def inputs(rank: int, seed: int, hidden: int = 1024) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(10 * seed + rank)
    x = torch.randn(8, hidden, generator=generator).to(torch.bfloat16)
    ids = torch.rand(8, 4, generator=generator).argsort(dim=1)[:, :2].int()
    return [tensor.npu() for tensor in (x, ids, torch.rand(8, 2, generator=generator))]


def check(rank: int) -> None:
    layer = Layer(rank)
    compiled = torch.compile(layer, backend=backend(), dynamic=False, fullgraph=True)
    for seed in range(3):
        given = inputs(rank, seed)
        if seed == 0:
            layer(*given)  # a group is opened by an eager call, never during a capture
        output = compiled(*given)
        torch.npu.synchronize()
        assert torch.equal(output.cpu(), layer(*given).cpu())
    if MODE == "max-autotune":
        check_ge_graph(rank)
        check_every_option(rank)
    if ranks.has_waits():
        check_measured(rank)
    check_installed(rank)


def check_measured(rank: int) -> None:
    """Outputs are those of a call without it. A captured graph has inputs of its own: there nobody is told."""
    compiled = torch.compile(Measured(rank), backend=backend(), dynamic=False, fullgraph=True)
    given, waits = inputs(rank, 3), torch.zeros(SIZE, dtype=torch.int64).npu()
    wanted = Layer(rank)(*given).cpu()
    for late in (False, True):
        torch.npu.synchronize()
        waits.zero_()
        time.sleep(LATE_S * (late and rank == LATE_RANK))
        assert torch.equal(compiled(*given, waits).cpu(), wanted)
    told = int(waits[LATE_RANK])  # microseconds
    if MODE != "max-autotune":
        assert told == 0, waits
    elif rank != LATE_RANK:
        assert told > 0.25e6 * LATE_S, waits


def check_installed(rank: int) -> None:
    """A group of its own, on which nobody met yet: every meeting below is made by a trace."""
    name = ascend_moe.hccl_comm_name(dist.new_group(list(range(SIZE))), rank)
    layer, given = Layer(rank, group_ep=name), inputs(rank, 5)
    wanted = layer(*given).cpu()  # opens the group with torch_npu's functions, which ask no one
    ascend_moe.install()
    text = refused(rank, given, group_ep=name, moe_expert_num=8 if rank else 4)
    assert "X-40 error moe_expert_num: ranks disagree: 4 on rank 0, 8 on rank 1" in text, text
    text = refused(rank, inputs(rank, 0, hidden=512 if rank else 1024), group_ep=name)
    told = "x: H is 512, allowed: 1024..8192" if rank else "group_ep: rank 1 refuses the call: x: H"
    assert f"X-25 error {told}" in text, text
    assert "compiled.py" in text, text  # where in the caller's code
    text = refused(rank, inputs(rank, 0, hidden=512), group_ep=name)
    assert "X-25 error x: H is 512" in text, text

    compiled = torch.compile(layer, backend=backend(), dynamic=False, fullgraph=True)
    for _ in range(2):
        output = compiled(*given)
        torch.npu.synchronize()
        assert torch.equal(output.cpu(), wanted)
    text = refused(rank, inputs(rank, 0, hidden=512), group_ep=name)  # alone, after the meeting
    assert "X-25 error x: H is 512" in text, text
    ascend_moe.uninstall()


def refused(rank: int, given: list[torch.Tensor], **changes) -> str:
    """The text with which it ends, before there is a graph to compile."""
    compiled = torch.compile(
        Layer(rank, **changes), backend=backend(), dynamic=False, fullgraph=True
    )
    graphs = counters["stats"]["unique_graphs"]
    try:
        compiled(*given)
    except ascend_moe.ConstraintError as error:
        assert counters["stats"]["unique_graphs"] == graphs
        return str(error)
    raise AssertionError(f"rank {rank}: {changes} was not refused")


def check_ge_graph(rank: int) -> None:
    """What torchair's converters made of the two calls, in the serialised GE graph.

    The numbers are written out here from the calls above; names and positions of the inputs are those of
    the operators' GE prototypes.
    """
    (graph,) = loaded_graphs()
    nodes = {op.type: op for op in graph.op}
    dispatch, combine = nodes["MoeDistributeDispatchV2"], nodes["MoeDistributeCombineV2"]

    # Which input of the graph comes first is dynamo's business, and differs between versions.
    data = {op.name: op.output_desc[0] for op in graph.op if op.type == "Data"}

    def given(source: str) -> tuple[int, list[int]]:
        tensor = data[source.split(":")[0]]
        return tensor.dtype, list(tensor.shape.dim)

    floating, bfloat16, int32 = 1, 27, 7  # proto.DT_FLOAT, DT_BF16 and DT_INT32 of ge_ir.proto
    x, ids, weights = (bfloat16, [8, 1024]), (int32, [8, 2]), (floating, [8, 2])
    assert list(map(given, dispatch.input[:2])) == [x, ids], list(dispatch.input)
    assert all(source == "" for source in list(dispatch.input)[2:7]), list(dispatch.input)

    expected = {
        "ep_world_size": SIZE,
        "ep_rank_id": rank,
        "moe_expert_num": 4,
        "shared_expert_num": 1,
    }
    for node in (dispatch, combine):
        attributes = {name: node.attr[name].i for name in expected}
        assert attributes == expected, (node.type, attributes)
        assert node.attr["group_ep"].s.decode() == ranks.GROUPS["ep"]
        assert node.attr["shared_expert_rank_num"].i == 0
    assert dispatch.attr["quant_mode"].i == 0
    assert dispatch.attr["expert_token_nums_type"].i == 1

    inputs = list(combine.input)
    assert nodes["Muls"].input[0] == f"{dispatch.name}:0"
    assert nodes["Cast"].input[0] == f"{nodes['Muls'].name}:0"
    assert inputs[0] == f"{nodes['Cast'].name}:0"
    assert given(inputs[1]) == ids
    assert inputs[2] == f"{dispatch.name}:2"  # assist_info_for_combine
    assert inputs[3] == f"{dispatch.name}:4"  # ep_send_counts
    assert given(inputs[4]) == weights


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print(f"{MODE} right")
