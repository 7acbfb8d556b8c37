"""torch.compile of dispatch, an expert and combine with torchair, in one of its modes.

usage: compiled.py max-autotune | reduce-overhead | npugraph_ex
"""

import sys

import ranks
import torch
import torch_npu
import torchair

from ascend_moe.vnpu import torchair_native

SIZE, MODE = 2, sys.argv[1]


class Layer(torch.nn.Module):
    def __init__(self, rank: int):
        super().__init__()
        self.group = {
            "group_ep": ranks.GROUPS["ep"],
            "ep_world_size": SIZE,
            "ep_rank_id": rank,
            "moe_expert_num": 4,
        }

    def forward(self, x, ids, weights):
        rows, _, assist, _, counts, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(
            x, ids, quant_mode=0, **self.group
        )
        return torch_npu.npu_moe_distribute_combine_v2(
            rows * 2.0, ids, assist, counts, weights, **self.group
        )


def backend():
    if MODE == "npugraph_ex":
        return MODE
    config = torchair.CompilerConfig()
    config.mode = MODE
    return torchair.get_npu_backend(compiler_config=config)


def check(rank: int) -> None:
    layer = Layer(rank)
    compiled = torch.compile(layer, backend=backend(), dynamic=False, fullgraph=True)
    for seed in range(3):
        generator = torch.Generator().manual_seed(10 * seed + rank)
        x = torch.randn(8, 1024, generator=generator).to(torch.bfloat16).npu()
        ids = torch.rand(8, 4, generator=generator).argsort(dim=1)[:, :2].int().npu()
        weights = torch.rand(8, 2, generator=generator).npu()
        if seed == 0:
            layer(x, ids, weights)  # a group is opened by an eager call, never during a capture
        output = compiled(x, ids, weights)
        torch.npu.synchronize()
        assert torch.equal(output.cpu(), layer(x, ids, weights).cpu())
    if MODE == "max-autotune":
        check_ge_graph(rank)


def check_ge_graph(rank: int) -> None:
    """What torchair's converters made of the two calls, in the serialised GE graph.

    The numbers are written out here from the calls above; names and positions of the inputs are those of
    the operators' GE prototypes.
    """
    # torchair_native is loaded under another name in this process, by its file; look where torchair looked.
    native = sys.modules.get("ascend_moe_vnpu_torchair_native", torchair_native)
    (graph,) = native.loaded_graphs
    nodes = {op.type: op for op in graph.op}
    dispatch, combine = nodes["MoeDistributeDispatchV2"], nodes["MoeDistributeCombineV2"]

    data = {op.name: op.attr["index"].i for op in graph.op if op.type == "Data"}
    sources = [data.get(source.split(":")[0]) for source in dispatch.input]
    assert sources[:2] == [0, 1], list(dispatch.input)
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
    assert data[inputs[1].split(":")[0]] == 1
    assert inputs[2] == f"{dispatch.name}:2"  # assist_info_for_combine
    assert inputs[3] == f"{dispatch.name}:4"  # ep_send_counts
    assert data[inputs[4].split(":")[0]] == 2


if __name__ == "__main__":
    ranks.run(SIZE, check)
    print(f"{MODE} right")
