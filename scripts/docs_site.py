"""Hooks of mkdocs: the navigation from docs/README.md, links to sources beyond docs/.

In: the tables of docs/README.md, a section each; Out: what mkdocs.yml leaves out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: As driftscope_service.pages.documentation has it.
SOURCES = "https://github.com/driftscope/driftscope/blob/main"
INDEX = "README.md"
_SECTION = re.compile(r"^## ([^:\n]+)", re.MULTILINE)
_ENTRY = re.compile(r"^\| \[([^\]]+)\]\(([^)#]+)[^)]*\) \|", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def slug(text: str, _separator: str) -> str:
    return _NOT_IN_ANCHORS.sub("", text.lower()).replace(" ", "-")


def on_config(config: Any) -> Any:
    docs = Path(config["docs_dir"])
    _, *parts = _SECTION.split((docs / INDEX).read_text(encoding="utf-8"))
    config["nav"] = [{"Home": INDEX}] + [
        {title: list(_entries(docs, text))}
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    return config


def _entries(docs: Path, text: str) -> Iterator[dict[str, Any]]:
    for title, path in _ENTRY.findall(text):
        if path.startswith(".."):
            continue
        if (docs / path).is_dir():
            pages = sorted(file.relative_to(docs).as_posix() for file in (docs / path).glob("*.md"))
            yield {title: sorted(pages, key=lambda page: not page.endswith(INDEX))}
        elif path.endswith(".md"):
            yield {title: path}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link out of docs/ leads to the sources, one to a folder of docs/ to its first page."""
    here = posixpath.dirname(page.file.src_uri)
    folder = Path(page.file.abs_src_path).parent

    def rewritten(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        target = posixpath.normpath(posixpath.join(here, path))
        if target.startswith(".."):
            return f"]({SOURCES}/{target.removeprefix('../')}{anchor})"
        if (folder / path).is_dir():
            first = min((folder / path).glob("*.md"), key=lambda file: (file.name != INDEX, file))
            return f"]({posixpath.join(path, first.name)}{anchor})"
        return found[0]

    return _LINK.sub(rewritten, markdown)
