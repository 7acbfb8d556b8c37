"""Before any test imports torch: with torch_npu installed and no CANN, plain ``import torch`` fails."""

import os

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
