"""Plain text for an 80-column terminal: aligned pairs and wrapped paragraphs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 80


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """One line per row, values aligned; a long value continues under itself."""
    texts = [(label, str(value)) for label, value in rows]
    indent = max(len(label) for label, _ in texts) + 2
    return "\n".join(
        textwrap.fill(
            value,
            WIDTH,
            initial_indent=label.ljust(indent),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if value
        else label
        for label, value in texts
    )


def paragraph(text: str, indent: str = "") -> str:
    """Wrapped text; words, such as rule ids and export lines, stay whole."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
