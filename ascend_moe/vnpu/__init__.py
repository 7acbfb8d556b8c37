"""The virtual NPU: the real torch_npu wheel on a machine without an NPU.

torch_npu reaches the device only through CANN's libraries. ``kernels/standin`` has libraries of the
same names that play a device on the host: memory the host may not touch, streams with a thread each,
communicators over shared memory, aten operators by torch's CPU kernels. ``kernels/op_api`` adds the
two MoE operators under their aclnn names. This package builds them once for the installed wheel and
puts them in torch_npu's way. A script notices no difference, and nothing here says anything about
speed, about AscendC code or about hardware.

Two ways in:

* ``ascend-moe run SCRIPT``: sets the environment and becomes the script, so that processes it
  starts, by fork or spawn, find the stand-in too;
* :func:`activate`: for a ``conftest.py`` or a notebook, before torch_npu is imported.

This package needs neither torch nor torch_npu to be imported, only to be installed.
"""

from ascend_moe.vnpu.activation import activate, is_active
from ascend_moe.vnpu.errors import VirtualNpuError

__all__ = ["VirtualNpuError", "activate", "is_active"]
