"""The glossary explains what pages link to, and every link of it leads somewhere."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from driftscope_probes.numbers import NUMBERS
from driftscope_probes.verdicts import COMPARISON_VERDICTS
from driftscope_service.numbers.diagnosis_words import verdict_words
from driftscope_service.numbers.glossary import GROUPS, OF_NUMBER, TERMS
from driftscope_service.numbers.metric_words import HEADLINE
from driftscope_service.pages.documentation import document
from driftscope_service.pages.report_template import SELF_CONTAINED, environment

USED = re.compile(r"""term\("([^"]+)"|verdict_term\(""")


def test_a_slug_names_one_row() -> None:
    assert len(TERMS) == sum(map(len, GROUPS.values()))
    assert set(OF_NUMBER) <= set(NUMBERS) and set(OF_NUMBER.values()) <= set(TERMS)


def test_every_headline_number_and_every_verdict_is_explained() -> None:
    assert set(HEADLINE) <= set(OF_NUMBER)
    names = {term.name for term in TERMS.values()}
    assert {verdict_words(word) for word in COMPARISON_VERDICTS} <= names
    assert {"Δ", "ρ", "S", "k1", "k3", "ESS", "excess", "floor"} <= names


@pytest.mark.parametrize("slug", TERMS)
def test_more_about_it_is_in_the_documentation(slug: str) -> None:
    name, _, section = TERMS[slug].doc.partition("#")
    page = document(name)
    assert page is not None, name
    assert not section or section in {one.anchor for one in page.sections}


def test_the_page_has_every_row_at_its_address(running: Any) -> None:
    shown = running.client.get("/glossary", headers={"accept": "text/html"}).text
    for slug, term in TERMS.items():
        assert f'<tr id="{slug}">' in shown
        assert term.name in shown


def test_templates_name_only_what_is_there() -> None:
    package = files("driftscope_service")
    sources = [path for path in package.rglob("*.jinja")]  # type: ignore[attr-defined]
    used = {slug for path in sources for slug in USED.findall(path.read_text()) if slug}
    assert used and used <= set(TERMS)


def test_a_term_links_on_the_site_and_is_an_abbreviation_offline() -> None:
    told = environment().from_string('{{ term("k3") }}{{ number_term("tokens", "a < b") }}')
    site, offline = told.render(), told.render(layout=SELF_CONTAINED)
    assert '<a class="term" href="/glossary#k3" title="k3 = mean(ρ − 1 − Δ).' in site
    assert "<abbr" in offline and "href" not in offline
    assert site.endswith("a &lt; b") and offline.endswith("a &lt; b")
