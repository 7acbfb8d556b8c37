"""docs/stock-defects.md: sizes at which CANN's own kernels lose tokens, from the table of contract/defects.py."""

from __future__ import annotations

from pathlib import Path

from ascend_moe.contract.defects import DEFECTS, EVIDENCE

HEAD = """# Defects of the stock kernels

<!-- Made by scripts/generate from ascend_moe/contract/defects.py; change the records there. -->

Sizes at which CANN's own dispatch and combine kernels lose tokens, hang or leave their windows. No document names them.
They were found {evidence}: the kernels of ops-transformer, unchanged, over a model of the vector
core and the network card (2026-11-29). All concern hierarchy; full mesh is not among them.

A call that meets one gets a warning with the id, from the checks of a call on an NPU where CANN's kernels will run (not
on CPU tensors, not on the virtual NPU), from `ascend-moe check` and `ascend-moe buffsize`. `ascend-moe explain S-01`
prints one. Where the last line says so, nothing in a call shows the defect.
"""
FOOT = """
## What the vendor's code does besides

Not defects, but worth knowing: the A3 tiling of v9.0.0 and later refuses unequal batches in hierarchy although its
kernels handle them (X-41); hierarchy combine reads up to 31 floats past the end of `expand_scales` on A2 and A3; the A2
window formula of hierarchy suffices to 4 KB.
"""


def files(root: Path) -> dict[str, str]:
    parts = [HEAD.format(evidence=EVIDENCE)]
    for defect in DEFECTS:
        shown = "warned" if defect.check is not None else "not visible in a call"
        parts.append(
            f"\n## {defect.id}: {defect.title}\n\n{defect.happens}\n\n"
            f"*Do:* {defect.remedy}\n\n*Seen in:* {defect.versions} *A call:* {shown}.\n"
        )
    return {"docs/stock-defects.md": "".join(parts) + FOOT}
