"""Verdicts over the steps: stretches, and the strip that they are drawn as."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from driftscope_service.runs.pages.verdict_strip import MOST_SHOWN, WIDTH, verdict_strip
from driftscope_service.runs.store.steps import StepVerdict, VerdictPoint

FLOOR = StepVerdict("at_floor", 0.9, "bf16_rounding_tail", 0.97)
STALE = StepVerdict("bug_like", 8.0, "stale_engine_weights", 0.9)


def worse(excess: float) -> StepVerdict:
    return StepVerdict("bug_like", excess, "stale_engine_weights", 0.8)


def test_neighbours_that_say_the_same_are_one_stretch() -> None:
    verdicts = [None, FLOOR, FLOOR, STALE, worse(12.0), worse(9.0), FLOOR]
    strip = verdict_strip([VerdictPoint(10 * i, one) for i, one in enumerate(verdicts)])
    assert strip is not None
    told = [(s.first_step, s.last_step, s.steps, s.said, s.excess) for s in strip.stretches]
    assert told == [
        (0, 0, 1, "no diagnosis", None),
        (10, 20, 2, "at the floor, bf16_rounding_tail", 0.9),
        (30, 50, 3, "bug-like, stale_engine_weights", 12.0),
        (60, 60, 1, "at the floor, bf16_rounding_tail", 0.9),
    ]
    assert [s.first_step for s in strip.shown] == [60, 30, 10, 0] and strip.hidden == 0


def test_the_strip_is_svg_without_style_and_as_wide_as_the_steps() -> None:
    points = [VerdictPoint(step, FLOOR if step < 6 else STALE) for step in range(8)]
    strip = verdict_strip(points)
    assert strip is not None
    svg = ET.fromstring(strip.svg)
    rects = [(r.get("class"), float(r.get("x", "")), float(r.get("width", ""))) for r in svg]
    assert rects == [("good", 0, WIDTH * 6 / 8), ("bad", WIDTH * 6 / 8, WIDTH * 2 / 8)]
    assert "steps 6 to 7 bug-like, stale_engine_weights" in (svg.get("aria-label") or "")
    assert "style" not in strip.svg


def test_a_name_cannot_leave_its_place() -> None:
    strip = verdict_strip([VerdictPoint(0, StepVerdict("bug_like", 1.0, '"><script>', 0.5))])
    assert strip is not None
    assert "<script>" not in strip.svg and re.search("&lt;script&gt;", strip.svg)


def test_steps_without_a_verdict_have_no_strip() -> None:
    assert verdict_strip([]) is None
    assert verdict_strip([VerdictPoint(step, None) for step in range(3)]) is None


def test_a_long_stretch_behind_a_single_step_is_drawn() -> None:
    points = [VerdictPoint(step, STALE if step == 0 else FLOOR) for step in range(10_000)]
    strip = verdict_strip(points)
    assert strip is not None
    widths = [(r.get("class"), float(r.get("width", ""))) for r in ET.fromstring(strip.svg)]
    assert [tone for tone, _ in widths] == ["bad", "good"]
    assert widths[1][1] > 0.99 * WIDTH


def test_ten_thousand_changes_are_a_small_page_and_hide_no_bug() -> None:
    points = [VerdictPoint(step, FLOOR if step % 2 else STALE) for step in range(10_000)]
    strip = verdict_strip(points)
    assert strip is not None
    assert 'class="bad"' in strip.svg and 'class="good"' not in strip.svg
    assert len(strip.svg) < 100_000


def test_a_run_that_flickers_shows_its_newest_stretches() -> None:
    points = [VerdictPoint(step, FLOOR if step % 2 else STALE) for step in range(40)]
    strip = verdict_strip(points)
    assert strip is not None
    assert len(strip.shown) == MOST_SHOWN and strip.hidden == 40 - MOST_SHOWN
    assert strip.shown[0].first_step == 39
