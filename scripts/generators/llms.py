"""docs/llms.txt: the pages for a program that reads, by the navigation of mkdocs.yml; the site serves it at its root.

Needs no YAML reader: an entry of the navigation is a line that ends with .md.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD = """# ascend-moe

> A drop-in for torch_npu's npu_moe_distribute_dispatch_v2 and combine_v2 on Ascend NPUs: every documented rule checked,
> HCCL_BUFFSIZE computed to the byte, the same results on CPU tensors, and the real torch_npu on a virtual NPU. Nothing
> of it has run on Ascend hardware.

Pages are in English (en/) and Chinese (the root). [The calculator of HCCL_BUFFSIZE](calculator.html) is one page and
needs no server.
"""


def files(root: Path) -> dict[str, str]:
    parts = [HEAD]
    for line in (root / "mkdocs.yml").read_text().splitlines():
        section = re.fullmatch(r"  - [^|]+ \| (.+):", line)
        page = re.fullmatch(r" +- ([\w-]+)\.md", line)
        if section:
            parts.append(f"\n## {section[1]}\n\n")
        elif page and page[1] != "index":
            title, about = _summary((root / f"docs/{page[1]}.md").read_text())
            parts.append(f"- [{title}](en/{page[1]}.html): {about}\n")
    return {"docs/llms.txt": "".join(parts)}


def _summary(page: str) -> tuple[str, str]:
    """The title, and the first sentence of prose, without markup."""
    title = page.split("\n", 1)[0].removeprefix("# ")
    text = re.sub(r"<!--.*?-->|```.*?```", "", page.split("\n", 1)[1], flags=re.DOTALL)
    prose = next(part for part in text.split("\n\n") if re.match(r"\s*[\w*`\[]", part))
    plain = re.sub(
        r"\[([^\]]*)\]\([^)]*\)|[*`]", lambda found: found[1] or "", " ".join(prose.split())
    )
    return title, re.split(r"(?<=[.:;])\s", plain)[0].rstrip(".:;")
