"""``python -m ascend_moe.vnpu`` builds the virtual NPU now, not at the first use (scripts/build_kernels host)."""

import sys

from ascend_moe.vnpu.build import virtual_npu
from ascend_moe.vnpu.errors import VirtualNpuError

try:
    print(f"built {virtual_npu().vendor}")
except VirtualNpuError as error:
    sys.exit(f"build_kernels host: {error}")
