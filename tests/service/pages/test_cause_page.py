"""/causes: the catalogue as pages."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from driftscope_probes.diagnosis import catalogue
from driftscope_probes.diagnosis.families.base import LEVELS
from driftscope_probes.diagnosis.families.registry import CAUSES
from driftscope_service.pages.cause_page import LEVEL_TITLES

HTML = {"accept": "text/html"}


def test_the_list_links_to_a_page_for_every_cause(running: Any) -> None:
    listed = running.client.get("/causes", headers=HTML).text
    for cause in CAUSES:
        assert f'href="/causes/{cause.name}"' in listed
        text = running.client.get(f"/causes/{cause.name}", headers=HTML).text
        for said in (cause.title[1:], cause.mechanism, cause.signature, cause.remedy):
            assert escape(said).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def test_unexplained_has_a_page_and_others_have_none(running: Any) -> None:
    text = running.client.get("/causes/unexplained", headers=HTML).text
    assert "at least 50 % sure" in text and "probe paired" in text
    assert running.client.get("/causes/made_up", headers=HTML).status_code == 404


def test_every_level_has_a_title() -> None:
    assert tuple(LEVEL_TITLES) == LEVELS


LOGIT_BIAS = replace(
    CAUSES[0], name="acme_logit_bias", alike=(), page="https://wiki.acme.example/bias"
)


def test_a_cause_of_another_package_has_a_page_of_its_own(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = EntryPoint("acme", f"{__name__}:LOGIT_BIAS", catalogue.GROUP)
    bad = EntryPoint("acme_bad", f"{__name__}:HTML", catalogue.GROUP)
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [good, bad])
    catalogue.catalogue.cache_clear()
    try:
        listed = running.client.get("/causes", headers=HTML).text
        text = running.client.get("/causes/acme_logit_bias", headers=HTML).text
    finally:
        catalogue.catalogue.cache_clear()
    assert "offered by ?" in listed and "no cause is taken from acme_bad" in listed
    assert 'href="https://wiki.acme.example/bias"' in text and "/docs/causes" not in text
