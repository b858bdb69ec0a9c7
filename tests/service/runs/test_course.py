"""What the steps of a run say together, on its page, in the list and on /metrics."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import numpy as np
import pytest

from driftscope_service.runs.course import (
    MOST_POINTS,
    course_causes,
    named_by,
    thinned,
    with_course,
)
from driftscope_service.runs.ingest.analysis import step_verdict
from driftscope_service.runs.store.steps import StepVerdict, VerdictPoint

HTML = {"accept": "text/html"}
STALE = "stale_engine_weights"


def growing(steps: int) -> list[VerdictPoint]:
    """Clean, and then further off with every step."""
    sizes = np.exp(np.linspace(0.0, 2.2, steps))
    return [
        VerdictPoint(step, StepVerdict("above_floor", float(size), "unexplained", None))
        for step, size in enumerate(sizes)
    ]


def test_a_run_that_grows_from_a_clean_step_is_named() -> None:
    causes = course_causes(growing(30))
    assert causes[0].name == STALE and causes[0].confidence >= 0.5
    # Steps of an older version have no verdict, and say nothing.
    assert course_causes([VerdictPoint(step, None) for step in range(30)]) == ()


def test_a_long_run_is_thinned_with_both_ends() -> None:
    points = [(step, StepVerdict("at_floor", 1.0, None, None)) for step in range(9_999)]
    few = thinned(points)
    assert len(few) == MOST_POINTS and (few[0][0], few[-1][0]) == (0, 9_998)
    assert len({step for step, _ in few}) == MOST_POINTS
    assert thinned(points[:20]) == points[:20]
    assert course_causes(growing(3_000))[0].name == STALE


def test_the_run_answers_where_the_last_step_has_no_answer(diagnoses: Any) -> None:
    causes = course_causes(growing(30))
    said = with_course(diagnoses.unexplained, causes)
    assert said.cause is not None and said.cause.name == STALE and not said.unexplained
    assert said.sentence.startswith("Above the floor: ")
    assert "as the steps together show (stale_engine_weights," in said.sentence
    assert said.sentence.endswith("the last step at 3.40 times the prior floor).")
    # The candidates of the step stay behind it.
    assert "lm_head_precision" in {cause.name for cause in said.causes[1:]}


def test_a_surer_step_or_a_healthy_one_keeps_its_answer(diagnoses: Any) -> None:
    causes = course_causes(growing(30))
    kept = with_course(diagnoses.bug_like, causes)
    assert (kept.cause, kept.sentence) == (diagnoses.bug_like.cause, diagnoses.bug_like.sentence)
    assert STALE in {cause.name for cause in kept.causes}
    assert with_course(diagnoses.at_floor, causes) == diagnoses.at_floor
    assert with_course(diagnoses.unexplained, ()) == diagnoses.unexplained
    unsure = [dataclasses.replace(cause, confidence=0.2) for cause in causes[:1]]
    assert with_course(diagnoses.unexplained, unsure).unexplained


def test_the_word_of_a_list_follows(diagnoses: Any) -> None:
    causes = course_causes(growing(30))
    unexplained = step_verdict(diagnoses.unexplained)
    found = named_by(unexplained, causes)
    assert found is not None and (found.verdict, found.cause) == ("above_floor", STALE)
    for said in (diagnoses.bug_like, diagnoses.at_floor):
        verdict = step_verdict(said)
        assert named_by(verdict, causes) == verdict
    assert named_by(None, causes) is None


@pytest.fixture
def stale(running: Any, add_step: Any, diagnoses: Any) -> Any:
    """Run r: every step is unexplained by itself, and together they grow from a clean one."""
    rollout = np.array([-0.1, -0.5, -1.0, -2.0, -0.3])
    for point in growing(12):
        assert point.verdict is not None
        said = dataclasses.replace(diagnoses.unexplained, excess=point.verdict.excess)
        add_step(running, "r", point.step, rollout, rollout - 0.01, said)
    return running


def test_the_page_of_the_run_leads_with_it_and_draws_its_course(stale: Any) -> None:
    text = stale.client.get("/runs/r", headers=HTML).text
    lead = text[text.index('id="diagnosis"') :]
    assert f"<code>{STALE}</code>" in lead and "as the steps together show" in lead
    assert 'source="/runs/r/plots/course.json"' in lead
    found = stale.client.get("/runs/r/plots/course.json").json()
    assert [row[0] for row in found["rows"]] == list(range(12))
    row = stale.client.get("/runs", headers=HTML).text
    assert f"<code>{STALE}</code>" in row[row.index('href="/runs/r"') :][:900]
    series = stale.client.get("/v1/runs/r/steps?limit=1").json()
    assert series["diagnosis"]["causes"][0]["name"] == STALE
    assert html.escape(series["diagnosis"]["sentence"]) in lead
    assert stale.client.get("/runs/nobody/plots/course.json").status_code == 404


def test_metrics_name_it_once_its_course_is_known(stale: Any, page: Any, eventually: Any) -> None:
    name = "run_cause_confidence"
    assert page(stale).value(name, run="r", cause="unexplained") == 1
    eventually(lambda: page(stale).value(name, run="r", cause=STALE) is not None)
    found = page(stale)
    assert found.value(name, run="r", cause=STALE) > 0.5
    assert found.value(name, run="r", cause="unexplained") is None
    assert found.value("run_verdict", run="r") == 2
