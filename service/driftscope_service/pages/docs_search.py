"""Which sections of the documentation hold the words that were asked for.

In: pages and a text. Out: Hit per section, the best first. Plain words, all of which must be there:
what a reader of a page remembers is a name, not a query language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from driftscope_service.pages.documentation import Document, Section

#: More would not be read; a longer list asks for one more word.
MOST_HITS: Final = 40
#: Of the text around the first word, so that a hit is told from its neighbours.
EXCERPT: Final = 160
#: A word in a heading says what the section is about.
_IN_TITLE, _IN_HEADING, _IN_TEXT = 100, 10, 1


@dataclass(frozen=True, slots=True)
class Hit:
    path: str
    title: str
    heading: str
    excerpt: str


def search(documents: Iterable[Document], asked: str) -> list[Hit]:
    words = asked.casefold().split()
    if not words:
        return []
    found = [
        (score, document, section)
        for document in documents
        for section in document.sections
        if (score := _score(words, document, section)) > 0
    ]
    found.sort(key=lambda one: -one[0])
    return [_hit(words[0], document, section) for _, document, section in found[:MOST_HITS]]


def _score(words: list[str], document: Document, section: Section) -> int:
    """0 unless every word is somewhere in it."""
    title, heading = document.title.casefold(), section.heading.casefold()
    text = section.text.casefold()
    total = 0
    for word in words:
        # The title counts for the first section alone, or a page would fill the list.
        in_title = word in title and section is document.sections[0]
        one = _IN_TITLE * in_title + _IN_HEADING * (word in heading)
        one += _IN_TEXT * min(text.count(word), _IN_HEADING - 1)
        if not one:
            return 0
        total += one
    return total


def _hit(word: str, document: Document, section: Section) -> Hit:
    at = max(0, section.text.casefold().find(word) - EXCERPT // 3)
    excerpt = section.text[at : at + EXCERPT].strip()
    before = "… " if at else ""
    after = " …" if at + EXCERPT < len(section.text) else ""
    path = f"{document.path}#{section.anchor}" if section.anchor else document.path
    return Hit(path, document.title, section.heading, f"{before}{excerpt}{after}")
