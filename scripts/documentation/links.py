"""Every link of a built site leads to a file and an anchor that exist: python links.py SITE. No other host is asked."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Document(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {value for value in (named.get("id"), named.get("name")) if value}
        self.links += [value for value in (named.get("href"), named.get("src")) if value]


def broken(site: Path) -> list[str]:
    """One line for each link that leads nowhere."""
    documents = {path.resolve(): Document(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, document in documents.items():
        if path.name == "404.html":  # its links are made for any depth
            continue
        for link in document.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            known = documents.get(target)
            anchor = unquote(parts.fragment)
            # The calculator's address carries its inputs, not an anchor.
            if not target.exists() or (
                anchor and known and "=" not in anchor and anchor not in known.anchors
            ):
                found.append(f"{path.relative_to(site.resolve())}: {link}")
    return found


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
