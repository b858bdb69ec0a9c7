"""/causes: the catalogue as pages."""

from __future__ import annotations

from html import escape
from typing import Any

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
