"""The pages of the causes say what the catalogue says, and lead to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftscope_probes.diagnosis.cause_pages import (
    EXAMPLE,
    RECORDED,
    index_page,
    kept_example,
    page_of,
    recorded_controls,
)
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.registry import BY_NAME, CAUSES

PAGES = Path(__file__).parents[2] / "docs" / "causes"
RECORDED_CONTROLS = recorded_controls(PAGES.parent / RECORDED)
#: Told by metadata that no drill pushes; without a detector no data name a cause at all.
WITHOUT_EXAMPLE = frozenset({"generation_config_defaults"})


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_the_page_is_that_of_the_catalogue(cause: Cause) -> None:
    """Print anew with python -m driftscope_probes.diagnosis.cause_pages CASES docs/causes."""
    page = PAGES / f"{cause.name}.md"
    text = page.read_text(encoding="utf-8")
    assert text == page_of(cause, kept_example(page), RECORDED_CONTROLS)
    assert EXAMPLE in text or cause.detect is None or cause.name in WITHOUT_EXAMPLE


def test_the_index_is_that_of_the_catalogue() -> None:
    assert (PAGES / "README.md").read_text(encoding="utf-8") == index_page()


def test_no_page_is_left_of_a_cause_that_went() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README", "unexplained"}
    assert pages == set(BY_NAME)
