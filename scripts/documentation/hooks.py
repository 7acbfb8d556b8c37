"""Two languages out of one folder, without a plugin: mkdocs runs once for each, with DOCS_LANGUAGE set.

English pages are NAME.md, Chinese ones NAME.zh.md beside them; both become NAME.html, the Chinese at the root of the
site and the English below en/. So links between files work on GitHub, where a Chinese page names Chinese files, and on
the site. A page that has no Chinese twin yet is shown in English there and says so.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LANGUAGE = os.environ.get("DOCS_LANGUAGE", "zh")
REPOSITORY = os.environ.get(
    "DOCS_REPOSITORY", ""
)  # where files outside docs/ can be read; empty: nowhere
TWIN = ".zh.md"
NAMES = {"zh": "中文", "en": "English"}
ROOTS = {"zh": "", "en": "en/"}
UNTRANSLATED = '!!! note "本页尚无中文版，以下为英文原文。"\n\n'


@event_priority(100)  # before the plugins, which look at what is set here
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.theme["language"] = LANGUAGE
    config.site_dir = str(Path(config.site_dir) / ROOTS[LANGUAGE])
    config.plugins["material/search"].config.lang = ["en"] if LANGUAGE == "en" else ["zh", "en"]
    config.nav = [_in_language(entry, Path(config.docs_dir)) for entry in config.nav]
    config.extra["alternate"] = []
    config.markdown_extensions.append("admonition")
    return config


def _in_language(entry: str | dict[str, list[str]], folder: Path) -> str | dict[str, list[str]]:
    if isinstance(entry, str):
        twin = entry.removesuffix(".md") + TWIN
        return twin if LANGUAGE == "zh" and (folder / twin).exists() else entry
    ((title, pages),) = entry.items()
    zh, en = title.split(" | ")
    return {zh if LANGUAGE == "zh" else en: [_in_language(page, folder) for page in pages]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of this language, under the same address in both."""
    chosen = []
    twins = {file.src_uri for file in files if file.src_uri.endswith(TWIN)}
    for file in files:
        twin = file.src_uri in twins
        if not file.is_documentation_page():
            if LANGUAGE == "zh" or not file.src_uri.endswith(".txt"):
                chosen.append(file)
        elif LANGUAGE == "en":
            if not twin:
                chosen.append(file)
        elif twin:
            target = file.src_uri.removesuffix(TWIN) + ".html"
            chosen.append(
                File(file.src_uri, config.docs_dir, config.site_dir, False, dest_uri=target)
            )
        elif file.src_uri.removesuffix(".md") + TWIN not in twins:
            chosen.append(file)
    return Files(chosen)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of docs/ lead to the repository, or are plain text where there is none to lead to."""

    def out(found: re.Match[str]) -> str:
        text, target = found[1], posixpath.normpath(posixpath.join("docs", found[2]))
        return f"[{text}]({REPOSITORY}/blob/main/{target})" if REPOSITORY else text

    markdown = re.sub(r"(?<!!)\[([^\]]*)\]\((\.\./[^)]*)\)", out, markdown)
    if LANGUAGE == "zh" and not page.file.src_uri.endswith(TWIN):
        # Links to pages with a twin: their English file is not part of this site.
        there = {file.src_uri for file in files}
        markdown = re.sub(
            r"\]\(([\w-]+)\.md(#[^)]*)?\)",
            lambda found: (
                found[0] if f"{found[1]}.md" in there else f"]({found[1]}{TWIN}{found[2] or ''})"
            ),
            markdown,
        )
        title, rest = markdown.split("\n", 1)
        markdown = f"{title}\n\n{UNTRANSLATED}{rest}"
    return markdown


def on_page_context(context: dict, page: Page, config: MkDocsConfig, nav: object) -> dict:
    """The switch of languages leads to the same page."""
    up = "" if LANGUAGE == "zh" else "../"
    config.extra["alternate"] = [
        {"name": NAMES[language], "lang": language, "link": f"{up}{root}{page.url}"}
        for language, root in ROOTS.items()
    ]
    return context
