"""A small drill, all the way: real pairs, push files, diagnosis, figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftscope_probes.analysis import analyze_step
from driftscope_probes.diagnosis.drill.courses import STEPS
from driftscope_probes.diagnosis.drill.floors import floor_of
from driftscope_probes.diagnosis.drill.report import DrillReport
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.diagnosis.drill.run import diagnosed, run_drill, run_probe
from driftscope_probes.progress import Progress
from driftscope_probes.push import read_step

pytestmark = pytest.mark.slow  # trains the tiny policy, once per machine
REQUEST = DrillRequest(
    cases=6, runs=0, causes=["off_by_one", "sentinel_or_nan_logprob"], models=["tiny-llama"]
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drill")


@pytest.fixture(scope="module")
def report(files: Path) -> DrillReport:
    return run_drill(REQUEST, files, lambda _: None, keep=True)


def test_each_case_was_pushed_and_answered(report: DrillReport, files: Path) -> None:
    assert (report.score.cases, report.score.healthy, len(report.answers)) == (6, 3, 9)
    assert {answer.file for answer in report.answers} == {file.name for file in files.iterdir()}
    for answer in report.answers:
        step = read_step(files / answer.file)
        assert step.tokens > 0
        # Kept files give the same answer: what is scored is what a user is told.
        diagnosis, without = diagnosed(files / answer.file, answer.cause)
        assert tuple(cause.name for cause in diagnosis.causes[:3]) == answer.first
        expected = analyze_step(step, floor=floor_of(step.metadata)).diagnosis
        assert diagnosis.to_dict() == expected.to_dict()
        assert (without is None) == (answer.cause is None)
        if without is not None:
            assert answer.cause not in [cause.name for cause in without.causes]


def test_figures_are_those_of_the_answers(report: DrillReport) -> None:
    faulty = [answer for answer in report.answers if answer.cause is not None]
    right = [answer.first[:1] == (answer.cause,) for answer in faulty]
    assert report.score.top1 == sum(right) / len(right)
    unexplained = [answer.without == "unexplained" for answer in faulty]
    assert report.score.unseen_named_unexplained == sum(unexplained) / len(unexplained)
    # Sentinels are a matter of the values themselves: found at any severity.
    assert report.score.by_cause["sentinel_or_nan_logprob"].top1 == 1.0


def test_runs_are_diagnosed_over_their_steps(tmp_path: Path) -> None:
    request = DrillRequest(
        cases=1, runs=3, way="a", causes=["sleep_wake_corruption"], models=["tiny-llama"]
    )
    report = run_drill(request, tmp_path, lambda _: None)
    asleep = [run for run in report.courses if run.cause == "sleep_wake_corruption"]
    assert [run.cause for run in report.courses].count(None) == 2
    assert len(asleep) == 1 and len(asleep[0].excess) == STEPS
    assert asleep[0].named == "sleep_wake_corruption"
    assert report.course_score.top1 == 1.0
    assert report.course_score.healthy_false_alarms == 0.0
    assert DrillReport.read(json.loads(json.dumps(report.to_dict()))) == report


def test_a_report_survives_its_json(report: DrillReport) -> None:
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert DrillReport.read(json.loads(text)) == report


def test_the_process_tells_its_progress_and_leaves_no_files(tmp_path: Path) -> None:
    heard: list[Progress] = []
    request = REQUEST.model_copy(update={"cases": 2})
    result = run_probe({"request": request.model_dump()}, tmp_path, heard.append)
    assert result["cases"] == 2 and result["request"]["causes"] == REQUEST.causes
    assert list(tmp_path.iterdir()) == []
    fractions = [progress.fraction for progress in heard]
    assert fractions == sorted(fractions) and "off_by_one" in " ".join(
        progress.detail for progress in heard
    )
