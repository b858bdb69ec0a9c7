"""Digests of both sides' weights outweigh every shape, and equal ones exclude what they exclude."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftscope_kernels.on_policy.weights.recorded import KINDS, MATCHING, Kind, WeightsDigest
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.diagnosis.over_steps import RunPoint, diagnose_run
from driftscope_probes.diagnosis.recorded_weights import ABOUT_WEIGHTS, CAUSES

from .faults import FAULTS, along_the_gradient, known_lag
from .made_up_policy import MadeUpPolicy

FAULTY = [kind for kind in KINDS if kind not in MATCHING]


def digest(kind: Kind, unseen: int = 0) -> WeightsDigest:
    names = () if kind in MATCHING else ("lm_head.weight",)
    return WeightsDigest(20, "a" * 16, "b" * 16, names, kind, len(names), unseen, 1, 0.25)


def told(observed: Observed, found: WeightsDigest) -> Diagnosis:
    metadata = {**observed.metadata, "weights_digest": str(found)}
    return diagnose(replace(observed, metadata=metadata))


def healthy(seed: int = 0) -> Observed:
    return MadeUpPolicy(seed).pair().observed()


def test_every_fault_has_a_cause() -> None:
    assert set(CAUSES) == set(FAULTY)
    assert set(CAUSES.values()) | ABOUT_WEIGHTS <= set(BY_NAME)


@pytest.mark.parametrize("kind", FAULTY)
def test_weights_that_differ_are_named_where_nothing_shows(kind: Kind) -> None:
    found = told(healthy(), digest(kind))
    assert found.verdict == "bug_like"
    first = found.causes[0]
    assert first.name == CAUSES[kind] and first.confidence > (0.6 if kind == "unknown" else 0.9)
    assert "lm_head.weight" in {one.value for one in first.evidence}
    assert CAUSES[kind] in found.sentence


@pytest.mark.parametrize("make", [make for _, make in FAULTS[:12]], ids=lambda one: one.__name__)
def test_they_come_first_beside_another_fault(make: object) -> None:
    found = told(make(7, "bf16"), digest("stale"))  # type: ignore[operator]
    assert found.causes[0].name == "stale_engine_weights"


@pytest.mark.parametrize("kind", sorted(MATCHING))
@pytest.mark.parametrize("seed", range(3))
def test_weights_that_match_say_nothing_of_a_healthy_step(kind: Kind, seed: int) -> None:
    observed = healthy(seed)
    found = told(observed, digest(kind))
    assert found.verdict == "at_floor"
    assert found.causes == diagnose(observed).causes


def test_weights_that_match_are_not_stale() -> None:
    observed = along_the_gradient(7, "bf16")
    assert diagnose(observed).causes[0].name == "stale_engine_weights"
    found = told(observed, digest("equal"))
    assert not {cause.name for cause in found.causes} & ABOUT_WEIGHTS
    assert found.verdict != "at_floor"
    partly = told(observed, digest("equal", unseen=3))
    sure = {cause.name: cause.confidence for cause in partly.causes}
    assert sure["stale_engine_weights"] < diagnose(observed).causes[0].confidence


def test_a_recorded_lag_is_meant() -> None:
    found = told(known_lag(7, "bf16"), digest("stale"))
    assert found.causes[0].name == "policy_staleness"


def test_bits_that_agree_stay_bitwise_equal() -> None:
    pair = MadeUpPolicy(0).pair()
    found = told(pair.changed(trainer=pair.rollout.copy()).observed(), digest("stale"))
    assert found.verdict == "bitwise_equal" and found.causes == ()


def test_what_cannot_be_read_changes_nothing() -> None:
    observed = healthy()
    broken = replace(observed, metadata={**observed.metadata, "weights_digest": "{"})
    assert diagnose(broken).to_dict() == diagnose(observed).to_dict()


def test_a_course_is_no_sync_where_the_last_weights_match() -> None:
    def course(match: bool | None) -> set[str]:
        points = [RunPoint(step, 1 + 0.5 * step, weights_match=match) for step in range(40)]
        return {cause.name for cause in diagnose_run(points)}

    assert "stale_engine_weights" in course(None) and "stale_engine_weights" in course(False)
    assert not course(True) & ABOUT_WEIGHTS
