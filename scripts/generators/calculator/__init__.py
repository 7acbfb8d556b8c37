"""docs/calculator.html: one page that says how large HCCL_BUFFSIZE must be, without a server and from a file.

    page.html, page.css, words.json   what is seen, in English and Chinese
    models.json                       sizes of well-known models
    reckon.js                         an answer, by looking up what tables.py traced out of ascend_moe
    config.js                         the sizes in a config.json, by the tables of ascend_moe/sizing/model.py
    plot.js, form.js                  the plot; the form and its link

The page holds no formula, limit or message of a rule of its own; tests/docs/test_calculator.py compares it with the
package.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ascend_moe.contract.buffsize import IMPLEMENTATIONS, MB, STOCK
from ascend_moe.contract.defects import DEFECTS_BY_ID
from ascend_moe.contract.limits import WINDOW_MB_DEFAULT
from ascend_moe.contract.rules import RULES_BY_ID
from ascend_moe.contract.window import TILING_BITS
from ascend_moe.sizing import model
from ascend_moe.sizing.deployment import SIZE_RULES
from generators.calculator import tables

HERE = Path(__file__).parent
SCRIPTS = ("reckon.js", "config.js", "plot.js", "form.js")


def files(root: Path) -> dict[str, str]:
    page = (HERE / "page.html").read_text()
    page = page.replace("/*style*/\n", (HERE / "page.css").read_text())
    scripts = [data(), *((HERE / name).read_text() for name in SCRIPTS)]
    return {"docs/calculator.html": page.replace("/*script*/\n", "\n".join(scripts))}


def data() -> str:
    """Constants of the page, one per line."""
    traced = tables.tables()
    functions = traced.pop("FUNCTIONS")
    rules = sorted(set(re.findall(r'\["([XDCES]-\d\d)",', "".join(functions))))
    statements = {
        rule: RULES_BY_ID[rule].statement if rule in RULES_BY_ID else DEFECTS_BY_ID[rule].happens
        for rule in rules
    }
    constants: dict[str, Any] = {
        "PRODUCTS": list(tables.PRODUCTS),
        "CONTRACTS": ["auto", *tables.ALL_CONTRACTS],
        "ALGORITHMS": list(tables.ALGORITHMS),
        "IMPLEMENTATIONS": list(IMPLEMENTATIONS),
        "STOCK": STOCK,
        "OPS": list(tables.OPS),
        "LARGEST": tables.LARGEST,
        "FIELDS": {name: [least, tables.LARGEST] for name, least in tables.FIELDS.items()},
        "TRAFFIC_FIELDS": list(tables.TRAFFIC),
        "FLAGS": {name: [least, tables.LARGEST] for name, least in tables.FLAGS.items()},
        "OPTIONAL_FLAGS": list(tables.OPTIONAL_FLAGS),
        "HAVE": [1, 2**TILING_BITS - 1],
        "HAVE_DEFAULT": WINDOW_MB_DEFAULT,
        "SIZE_RULES": sorted(SIZE_RULES),
        "ALIASES": model.ALIASES,
        "LATENT": model.LATENT,
        "TEXT_MODELS": model.TEXT_MODELS,
        "FEED_FORWARD": model.FEED_FORWARD,
        "CONFIG_MAX_BYTES": model.FILE_MAX_BYTES,
        "MODELS": json.loads((HERE / "models.json").read_text()),
        "STATEMENTS": statements,
        "WORDS": json.loads((HERE / "words.json").read_text()),
        **traced,
    }
    lines = [f"const MB = {MB}n;"]
    lines += [
        f"const {name} = {json.dumps(value, ensure_ascii=False)};"
        for name, value in constants.items()
    ]
    return "\n".join([*lines, "const FUNCTIONS = [", *(f"{text}," for text in functions), "];\n"])
