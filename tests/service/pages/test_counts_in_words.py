"""Pages of a store with one of everything never say "1 steps"."""

from __future__ import annotations

import re
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

HTML = {"accept": "text/html"}
#: A lone 1 and a word that ends as a plural does; a tag between them does not matter.
PLURAL = re.compile(r"(?<![\w.,−-])1 ([a-z]+s)\b")
#: End with an s and are not plurals.
SINGULAR = {"is", "was", "has", "less", "axis", "this", "as", "plus", "minus", "across"}
PATHS = (
    *("/runs", "/runs/r", "/runs/r/state", "/runs/r/steps/0", "/compare?a=r&b=r"),
    *("/compare?a=r:0&b=r:0", "/jobs", "/probes", "/kernels", "/nightly", "/docs?q=martingale"),
)


def said(html: str) -> str:
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    # What stands in cells or lines of their own is not a phrase.
    parted = re.sub(
        r"</?(?:t[dhr]|li|d[td]|p|h\d|option|label|div|span|summary)\b[^>]*>", " | ", html
    )
    text = unescape(re.sub(r"<[^>]+>", " ", parted))
    attributes = " ".join(re.findall(r'(?:aria-label|title)="([^"]*)"', html))
    return " ".join(f"{text} {unescape(attributes)}".split())


def plurals(text: str) -> list[str]:
    """With what stands around them."""
    return [
        text[max(0, found.start() - 40) : found.end()]
        for found in PLURAL.finditer(text)
        if found[1] not in SINGULAR
    ]


def test_a_plural_after_one_is_seen() -> None:
    assert len(plurals(said("<p>All <b>1</b> steps</p>"))) == 1
    assert plurals("1 step, 21 steps, 0.1 nats, 1 is less") == []


@pytest.mark.parametrize("tokens", [1, 2])
def test_no_page_of_a_tiny_store_counts_one_in_the_plural(
    tokens: int, pushing: Any, running: Any
) -> None:
    body = pushing.body(lengths=(tokens,))
    assert pushing.push(body, run="r", step=0).status_code == 201
    for path in PATHS:
        answer = running.client.get(path, headers=HTML)
        assert answer.status_code == 200, path
        text = said(answer.text)
        assert plurals(text) == [], path
    answer = running.client.get("/v1/runs/r/steps/0").text
    assert plurals(answer) == []


def test_templates_leave_the_plural_to_the_filter() -> None:
    """`counted` says it; a count that is written beside a plural is a "1 steps" in waiting."""
    package = Path(str(files("driftscope_service")))
    by_hand = re.compile(r"\}\} (steps|tokens|sequences|runs|nights|items|layers|sections)\b")
    found = {
        str(path.relative_to(package)): by_hand.findall(path.read_text())
        for path in package.rglob("*.jinja")
        if by_hand.search(path.read_text())
    }
    assert found == {}
