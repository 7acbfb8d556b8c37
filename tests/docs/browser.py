"""A page in headless Chromium, with a script of the test's own at its end; no window, nothing left behind."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

# Where it has to be there (.ci/run installs it), a test without it fails.
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("REQUIRE_CHROMIUM"), reason="no chromium here"
)


def outcome(page: str, script: str, folder: Path, fragment: str = "") -> Any:
    """What `script` returns, run in the page after its own scripts."""
    assert CHROMIUM is not None, f"no chromium: none of {', '.join(NAMES)}"
    closing = (
        '<script>{const found = document.createElement("pre"); found.id = "outcome"; found.textContent = '
        f"JSON.stringify((() => {{{script}}})());document.body.replaceChildren(found);}}</script></body>"
    )
    path = folder / "page.html"
    path.write_text(page.replace("</body>", closing))
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",  # tests may run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=500,900",  # as narrow as it goes: what is for phones applies
            "--virtual-time-budget=2000",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            f"{path.as_uri()}{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    written = re.search(r'<pre id="outcome">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written, f"exit {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(html.unescape(written[1]))
