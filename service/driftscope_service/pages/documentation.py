"""The documentation of this very version, as HTML: docs/ of the sources, packed into the wheel.

In: the name of a page without .md. Out: Document with its HTML, headings and plain text. Markdown
is written by us, and still no HTML of it goes through: what looks like a tag is shown as text.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

ROOT: Final = "/docs"
INDEX: Final = "README"
#: What a page links to beyond docs/ is in the sources only.
SOURCES: Final = "https://github.com/driftscope/driftscope/blob/main"
IMAGES: Final[Mapping[str, str]] = {".png": "image/png", ".svg": "image/svg+xml"}
#: Printed into docs/ for who reads the sources; the running service has its own.
OPENAPI: Final = "openapi.json"
#: Where the wheel holds docs/ (pyproject.toml, force-include).
_PACKED: Final = "documentation"
_NOT_IN_ANCHORS: Final = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with the text below it, up to the next one."""

    anchor: str  # "" before the first heading
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    name: str  # path in docs/ without .md
    title: str
    html: Markup
    sections: tuple[Section, ...]

    @property
    def path(self) -> str:
        return page_path(self.name)


def page_path(name: str) -> str:
    """The first page of a folder is the folder's."""
    return f"{ROOT}/{name}".removesuffix(f"/{INDEX}")


def document(name: str) -> Document | None:
    """By the part of its address below /docs."""
    known, asked = documents(), name.strip("/").removesuffix(".md")
    return known.get(asked) or known.get(f"{asked}/{INDEX}")


@cache
def documents() -> Mapping[str, Document]:
    """Every page by its name. Empty where the package was installed without its documentation."""
    root = _folder()
    if root is None:
        return {}
    return {
        name: _document(name, file.read_text(encoding="utf-8"))
        for name, file in sorted(_files(root, ""))
        if name.endswith(".md")
        for name in [name.removesuffix(".md")]
    }


def folder(name: str) -> list[Document]:
    """The pages of a folder of docs/ that has no first page of its own."""
    inside = f"{name.strip('/')}/"
    return [one for known, one in documents().items() if known.startswith(inside)]


@cache
def images() -> Mapping[str, Traversable]:
    """Every picture by its path in docs/."""
    root = _folder()
    if root is None:
        return {}
    return {name: file for name, file in _files(root, "") if _suffix(name) in IMAGES}


def image_type(name: str) -> str:
    return IMAGES[_suffix(name)]


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1]


def _folder() -> Traversable | None:
    package = files("driftscope_service")
    packed = package / _PACKED
    if packed.is_dir():
        return packed
    # In a checkout, and where one is installed as editable.
    checkout = Path(str(package)).parents[1] / "docs"
    return checkout if (checkout / f"{INDEX}.md").is_file() else None


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _document(name: str, text: str) -> Document:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    folder = posixpath.dirname(name)
    sections = list(_sections(tokens))
    anchors = (one.anchor for one in sections if one.anchor)
    for token in tokens:
        if token.type == "heading_open":
            token.attrSet("id", next(anchors))
        elif token.type == "table_open":
            token.attrSet("class", "plain")
        for child in token.children or ():
            _rewrite(child, folder)
    title = next((one.heading for one in sections if one.heading), name)
    html = _scrolling(markdown.renderer.render(tokens, markdown.options, {}), title)
    return Document(name, title, html, tuple(sections))


def anchor(heading: str) -> str:
    """As GitHub makes it, so that one link works in the sources and here."""
    return _NOT_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")


def _rewrite(token: Token, folder: str) -> None:
    for name in ("href", "src"):
        target = token.attrGet(name)
        if isinstance(target, str):
            token.attrSet(name, link(target, folder))


def link(target: str, folder: str) -> str:
    """Of a page in `folder` of docs/: pages and pictures here, everything else in the sources."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path:
        return target
    path = posixpath.normpath(posixpath.join(folder, parts.path))
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    if path.startswith("../"):
        return f"{SOURCES}/{path.removeprefix('../')}{fragment}"
    if path == OPENAPI:
        return f"/{OPENAPI}"
    root = _folder()
    if path.endswith(".md") or (root is not None and root.joinpath(path).is_dir()):
        return page_path(path.removesuffix(".md")) + fragment
    if _suffix(path) in IMAGES:
        return f"{ROOT}/{path}"
    return f"{SOURCES}/docs/{path}{fragment}"


def _scrolling(html: str, title: str) -> Markup:
    """Wide tables scroll in a box of their own, which the keyboard reaches."""
    counter = iter(range(1, html.count("<table") + 1))

    def opened(found: re.Match[str]) -> str:
        label = escape(f"{title}, table {next(counter)}")
        return f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">{found[0]}'

    return Markup(re.sub("<table[^>]*>", opened, html).replace("</table>", "</table></div>"))


def _sections(tokens: list[Token]) -> Iterator[Section]:
    heading, texts, seen = "", list[str](), Counter[str]()
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            if texts or heading:
                yield _section(heading, texts, seen)
            heading, texts = tokens[place + 1].content, []
        elif token.type == "inline" and tokens[place - 1].type != "heading_open":
            texts.append("".join(child.content or " " for child in token.children or ()))
        elif token.type in ("fence", "code_block"):
            texts.append(token.content)
    yield _section(heading, texts, seen)


def _section(heading: str, texts: list[str], seen: Counter[str]) -> Section:
    """A heading that comes again gets a number, as on GitHub."""
    name = anchor(heading)
    again = f"-{seen[name]}" if seen[name] else ""
    seen[name] += 1
    return Section(name + again, _plain(heading), " ".join(texts))


def _plain(heading: str) -> str:
    return heading.replace("`", "").replace("**", "")
