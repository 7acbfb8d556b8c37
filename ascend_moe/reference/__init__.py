"""The oracle: both operators over all ranks in one process, in plain torch, bit-exact to the kernels' semantics.

``routing`` and ``quant`` hold what the CPU executor shares with it; the exchange itself is written twice on purpose.
"""

from ascend_moe.reference.combine import combine_world
from ascend_moe.reference.dispatch import DispatchOutput, dispatch_world

__all__ = ["DispatchOutput", "combine_world", "dispatch_world"]
