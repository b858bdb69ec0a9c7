"""Odds against each other, and what an earlier level explains away."""

from __future__ import annotations

import pytest

from driftscope_probes.diagnosis.cause import Evidence, Finding
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.base import LEVELS
from driftscope_probes.diagnosis.families.registry import BY_NAME, CAUSES
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.diagnosis.rank import MOST_SHOWN, ranked

from .made_up_policy import MadeUpPolicy

SEEN = Examination(MadeUpPolicy(1, sequences=4).pair().observed(), prior_floor("bf16", "bf16"))


def order(**confidence: float) -> list[tuple[str, float]]:
    findings = {
        name: Finding(value, (Evidence("planted", 1, "0"),)) for name, value in confidence.items()
    }
    return [(cause.name, cause.confidence) for cause in ranked(SEEN, findings)]


def test_one_finding_keeps_its_confidence() -> None:
    assert dict(order(off_by_one=0.9)) == pytest.approx({"off_by_one": 0.9})


def test_two_equals_share() -> None:
    found = order(rank_local_corruption=0.8, replica_differs=0.8)
    assert [value for _, value in found] == [pytest.approx(4 / 9)] * 2


def test_an_earlier_level_explains_a_later_one() -> None:
    found = dict(order(off_by_one=0.95, stale_engine_weights=0.95))
    assert found["off_by_one"] > 0.85 and found.get("stale_engine_weights", 0.0) < 0.1


def test_at_most_six_are_shown_and_two_have_their_plot() -> None:
    many = {cause.name: 0.5 for cause in CAUSES if cause.level == "context"}
    found = ranked(SEEN, {name: Finding(value, ()) for name, value in many.items()})
    assert len(found) <= MOST_SHOWN
    assert [cause.plot is not None for cause in found[:3]] == [True, True, False]


def test_the_catalogue_is_whole() -> None:
    assert len(BY_NAME) == len(CAUSES) >= 44
    for cause in CAUSES:
        assert cause.level in LEVELS
        assert cause.name.isidentifier() and cause.name == cause.name.lower()
        assert (
            not cause.title.endswith(".") and cause.title[0].islower() or cause.title[:2].isupper()
        )
        assert all(text.endswith(".") for text in (cause.remedy, cause.next_control))
        assert all(name in BY_NAME for name in cause.alike)
