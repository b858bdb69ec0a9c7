"""docs/explain-drill.json: bugs that were planted in live pairs, and how many were named."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from driftscope_probes.explain.planted.page import page
from driftscope_probes.explain.planted.report import LocalisationReport

PAGE = Path(__file__).parents[4] / "docs" / "explain-drill.md"
RECORDED = LocalisationReport.read(json.loads(PAGE.with_suffix(".json").read_text()))
#: So many are wanted of each kind of bug, and so many kinds and healthy pairs.
KINDS, HEALTHY = 12, 30


def test_the_recorded_drill_reaches_its_bars() -> None:
    assert RECORDED.shortfalls() == []
    assert len({case.bug for case in RECORDED.planted}) >= KINDS
    # A sample that is drawn twice is one pair.
    assert len({(case.pair, case.gap) for case in RECORDED.healthy}) >= HEALTHY


def test_a_bar_that_is_missed_is_said() -> None:
    wrong = [case.model_copy(update={"first_site": "embedding"}) for case in RECORDED.planted]
    healthy = [case.model_copy(update={"verdict": "fault"}) for case in RECORDED.healthy]
    missed = RECORDED.model_copy(update={"cases": [*wrong, *healthy]}).shortfalls()
    assert len(missed) == 3


def test_the_page_is_that_of_the_records() -> None:
    text = PAGE.read_text(encoding="utf-8")
    day = date.fromisoformat(text.partition("- date: ")[2].partition(";")[0])
    assert text == page(RECORDED, day)
