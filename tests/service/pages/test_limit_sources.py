"""Every limit leads to the section of docs/limits.md that says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from driftscope_probes.mismatch.thresholds import THRESHOLDS, Threshold
from driftscope_service.pages.limit_sources import LIMITS_PAGE, limit_page

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")
SECTIONS = {
    heading.lower().replace(" ", "-"): text
    for heading, text in re.findall(r"^#+ (.+)\n([^#]*)", PAGE, re.MULTILINE)
}


@pytest.mark.parametrize("one", THRESHOLDS, ids=lambda one: f"{one.metric}-{one.direction}")
def test_a_limit_leads_to_a_section_that_names_its_number(one: Threshold) -> None:
    page, _, section = limit_page(one.source).partition("#")
    assert page == LIMITS_PAGE
    assert f"`{one.metric}`" in SECTIONS[section]


def test_a_source_that_nobody_knows_leads_to_the_page() -> None:
    assert limit_page("somebody: above 3") == LIMITS_PAGE
