"""Pages link to what exists, and the index of docs/ leads to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "examples" / "README.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
#: A path in the text of CONTRIBUTING.md; `<kind>` stands for what the reader adds.
NAMED = re.compile(r"`((?:service|probes|kernels|tests|docs|scripts|examples)/[\w./-]*)(?=[`<])")
RULES = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def links(page: Path) -> list[str]:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(text) if not re.match(r"https?://|mailto:", link)]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_leads_to_every_page() -> None:
    """A link to a folder leads to all that is in it."""
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    pages = [page for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]
    assert [page for page in pages if not linked & {page, *page.parents}] == []


def test_the_rules_name_paths_that_exist() -> None:
    paths = NAMED.findall(RULES)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
