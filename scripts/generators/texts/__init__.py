"""Chinese for the generated pages: what the records say in English, by id or by the English text itself.

A test holds both together: every text has its Chinese, which names the same numbers. What goes by id ends with `digest`
of the English, so that a text that was changed asks for its Chinese again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
SUFFIX = {"en": "", "zh": ".zh"}  # of a page's name


def chinese(name: str) -> Any:
    """The table NAME.zh.json."""
    return json.loads((Path(__file__).parent / f"{name}.zh.json").read_text())


def digest(*english: str) -> str:
    """What stands behind the Chinese of these texts."""
    return hashlib.sha256("\n".join(english).encode()).hexdigest()[:8]
