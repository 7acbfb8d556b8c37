"""The three lines of docs/testing.md make a gloo group answer as an HCCL group is asked."""

import re
import subprocess
import sys
from pathlib import Path

from vnpu_launch import clean_environment

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, types
sys.modules["torch_npu"] = types.ModuleType("torch_npu")
import ascend_moe
ascend_moe.install()
import torch
import torch.distributed as dist
{adapter}
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{{sys.argv[2]}}", rank=rank, world_size=2)
import torch_npu
group = dist.new_group([0, 1])
name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
x = torch.full((4, 1024), rank + 1.0, dtype=torch.bfloat16)
ids = torch.tensor([[0, 1]] * 4, dtype=torch.int32)
where = dict(group_ep=name, ep_world_size=2, ep_rank_id=rank, moe_expert_num=2)
rows, _, assist, _, counts, *_ = torch_npu.npu_moe_distribute_dispatch_v2(x, ids, **where)
assert rows[4, 0] == 2 and rows[0, 0] == 1
weights = torch.full((4, 2), 0.5)
y = torch_npu.npu_moe_distribute_combine_v2(rows, ids, assist, counts, weights, **where)
assert torch.equal(y, x)
dist.barrier()
dist.destroy_process_group()
"""


def test_the_group_adapter(tmp_path):
    page = (ROOT / "docs/testing.md").read_text()
    (adapter,) = re.findall(r"adapter:start -->\n```python\n(.*?)```", page, re.DOTALL)
    command = [sys.executable, "-c", PROGRAM.format(adapter=adapter)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env=clean_environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=120)
        assert rank.returncode == 0, error
