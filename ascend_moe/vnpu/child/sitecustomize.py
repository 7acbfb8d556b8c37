"""Python runs this at the start of every process below ``ascend-moe run``: PYTHONPATH names its folder.

The libraries are found through LD_LIBRARY_PATH; what is left to do is torchair's native half. A
sitecustomize that this one hides is run as well.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_hidden_sitecustomize() -> None:
    """Run the next sitecustomize on the path, which belongs to the user's environment."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def offer_torchair_native() -> None:
    """Load the one module that is needed by its file: the package may not be on this process's path."""
    file = HERE.parent / "torchair_native.py"
    spec = importlib.util.spec_from_file_location("ascend_moe_vnpu_torchair_native", file)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        module.install()


def share_imports_with_forked_ranks() -> None:
    """Torch imports dynamo (a second of work) with the first operator on a device: before the ranks part."""
    if "torch_npu" in sys.modules:
        importlib.import_module("torch._dynamo")


offer_torchair_native()
os.register_at_fork(before=share_imports_with_forked_ranks)
run_hidden_sitecustomize()
