"""The entry point of group ``vllm.general_plugins``: vLLM calls it in each of its processes."""

from __future__ import annotations

import os

VARIABLE = "ASCEND_MOE_INSTALL"


def install_when_asked() -> None:
    """Puts the checking functions in torch_npu's place if ``ASCEND_MOE_INSTALL`` is 1.

    vLLM loads every plugin that is installed, so without the variable (or with 0) nothing happens and nothing is
    imported. Raises ValueError for another value, and ImportError where torch_npu cannot be imported.
    """
    value = os.environ.get(VARIABLE, "")
    if value in ("", "0"):
        return
    if value != "1":
        raise ValueError(f"{VARIABLE}={value}: 1 installs ascend_moe's checks, 0 does not")
    import ascend_moe

    ascend_moe.install()
