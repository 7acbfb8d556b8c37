"""The functions and the rules over the operators of a torch_npu of 2025, whose schemas have fewer parameters.

Source of the schemas: Ascend/op-plugin op_plugin/config/op_plugin_functions.yaml@24023a4a (2025-07-10), in 2.5.1.post1.
"""

import os
import subprocess
import sys
from pathlib import Path

import ascend_moe

SCHEMAS = {
    "dispatch": (
        "npu_moe_distribute_dispatch_v2(Tensor x, Tensor expert_ids, str group_ep, int ep_world_size, int ep_rank_id, "
        "int moe_expert_num, *, Tensor? scales=None, Tensor? x_active_mask=None, Tensor? expert_scales=None, "
        'str group_tp="", int tp_world_size=0, int tp_rank_id=0, int expert_shard_type=0, int shared_expert_num=1, '
        "int shared_expert_rank_num=0, int quant_mode=0, int global_bs=0, int expert_token_nums_type=1) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "combine": (
        "npu_moe_distribute_combine_v2(Tensor expand_x, Tensor expert_ids, Tensor assist_info_for_combine, "
        "Tensor ep_send_counts, Tensor expert_scales, str group_ep, int ep_world_size, int ep_rank_id, "
        "int moe_expert_num, *, Tensor? tp_send_counts=None, Tensor? x_active_mask=None, Tensor? expand_scales=None, "
        'Tensor? shared_expert_x=None, str group_tp="", int tp_world_size=0, int tp_rank_id=0, '
        "int expert_shard_type=0, int shared_expert_num=1, int shared_expert_rank_num=0, int global_bs=0, "
        "int comm_quant_mode=0) -> Tensor"
    ),
}
TORCH_NPU = f"""
import torch

library = torch.library.Library("npu", "FRAGMENT")
for op, schema in {SCHEMAS!r}.items():
    library.define(schema)
    outputs = (lambda x: (x.new_empty(7),) * 7) if op == "dispatch" else (lambda x: x.new_empty(7))
    library.impl(f"npu_moe_distribute_{{op}}_v2", lambda x, *args, make=outputs, **kwargs: make(x), "Meta")
npu_moe_distribute_dispatch_v2 = torch.ops.npu.npu_moe_distribute_dispatch_v2
npu_moe_distribute_combine_v2 = torch.ops.npu.npu_moe_distribute_combine_v2
"""
RANK = """
import sys
import torch
import torch.distributed as dist
import torch_npu
import ascend_moe

stock = torch.ops.npu.npu_moe_distribute_dispatch_v2, torch.ops.npu.npu_moe_distribute_combine_v2
ascend_moe.install()
checked = torch_npu.npu_moe_distribute_dispatch_v2, torch_npu.npu_moe_distribute_combine_v2
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
x = torch.full((4, 1024), rank + 1.0, dtype=torch.bfloat16)
ids = torch.tensor([[0, 1]] * 4, dtype=torch.int32)
weights = torch.full((4, 2), 0.5)
where = {"group_ep": ascend_moe.hccl_comm_name(None, rank), "ep_world_size": 2, "ep_rank_id": rank, "moe_expert_num": 2}
for dispatch, combine in (stock, checked):
    rows, _, assist, _, counts, *_ = dispatch(x=x, expert_ids=ids, **where)
    handle = {"assist_info_for_combine": assist, "ep_send_counts": counts, "expert_scales": weights}
    y = combine(expand_x=rows, expert_ids=ids, **handle, **where)
    assert torch.equal(y, x)
rows, *_ = checked[0](x, ids, comm_alg="fullmesh_v1", **where)  # ours takes all, whatever theirs knows
assert rows[0, 0] == 1 and rows[4, 0] == 2
many = torch.arange(17, dtype=torch.int32).expand(4, 17)
for dispatch, _ in (stock, checked):
    try:
        dispatch(x=x, expert_ids=many, **where)
    except ascend_moe.ConstraintError as error:
        assert "17" in str(error)
    else:
        raise AssertionError("K=17 was not refused")
described, *_ = checked[0](x.to("meta"), ids.to("meta"), **where)
assert described.shape == (7,)  # by their Meta kernel
try:
    checked[0](x.to("meta"), ids.to("meta"), comm_alg="fullmesh_v1", **where)
except TypeError as error:
    assert "of the installed torch_npu has no parameter 'comm_alg'" in str(error), error
else:
    raise AssertionError("comm_alg reached an operator without it")
dist.barrier()
dist.destroy_process_group()
"""


def test_operators_with_the_parameters_of_2025(tmp_path):
    (tmp_path / "torch_npu").mkdir()
    (tmp_path / "torch_npu/__init__.py").write_text(TORCH_NPU)
    path = os.pathsep.join([str(tmp_path), str(Path(ascend_moe.__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=120)
        assert rank.returncode == 0, error
