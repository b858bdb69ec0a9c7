"""`driftscope drill --controls`: what it refuses, prints and keeps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from driftscope_probes.diagnosis.drill.planted.page import page
from driftscope_probes.diagnosis.drill.planted.report import CaseRun, ControlRun, ControlsReport
from driftscope_probes.errors import RequestError
from driftscope_service.cli.drill_controls import keep, print_controls

Run = Callable[..., subprocess.CompletedProcess[str]]


def ran(control: str, outcome: str) -> ControlRun:
    return ControlRun(
        control=control,
        outcome=outcome,
        what="sigma",
        value=0.1,
        expected="up to 0.14",
        seconds=2.0,
        asked_by="planner",
    )


CASE = CaseRun(
    cause="norm_eps",
    what="another epsilon",
    alike="trainer",
    model="tiny",
    dtypes="bf16/bf16",
    seed=0,
    data_verdict="above_floor",
    data_causes=[["rope_config", 0.3]],
    sigma=0.3,
    floor=0.07,
    answer="norm_eps",
    confidence=0.96,
    ended="sure",
    runs=[ran("norm_epsilon", "clean"), ran("eager", "it did not happen here")],
    own=["norm_epsilon"],
    planner_controls=1,
    fixed_controls=9,
    seconds=20.0,
)
REPORT = ControlsReport(
    cases=[CASE],
    request={},
    environment={
        "python": "3.13.1",
        "platform": "Linux",
        "packages": {"torch": "2.10.0"},
        "hardware": {"cpu": "a CPU", "cores": 2},
    },
    seconds=20.0,
)


def test_answers_and_the_matrix_are_printed() -> None:
    text = StringIO()
    print_controls(REPORT, Console(file=text, width=160))
    said = text.getvalue()
    assert "norm_eps" in said and "0.96" in said and "1 of 1" in said
    assert "Missed" not in said
    wrong = REPORT.model_copy(update={"cases": [CASE.model_copy(update={"answer": "unexplained"})]})
    print_controls(wrong, Console(file=text, width=160))
    assert "unexplained (wrong)" in text.getvalue() and "Missed: right cause" in text.getvalue()


def test_cases_are_kept_beside_the_page_and_added_to(tmp_path: Path) -> None:
    file = tmp_path / "controls.md"
    keep(REPORT, file)
    keep(REPORT.model_copy(update={"cases": [CASE.model_copy(update={"seed": 1})]}), file)
    kept = ControlsReport.read(json.loads((tmp_path / "controls.json").read_text("utf-8")))
    assert [case.seed for case in kept.cases] == [0, 1]
    # What had no outcome is of no use later.
    assert [run.control for run in kept.cases[0].runs] == ["norm_epsilon"]
    assert file.read_text("utf-8") == page(kept, datetime.now(UTC).date())


def test_a_file_that_is_no_record_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "controls.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="does not hold recorded controls"):
        keep(REPORT, tmp_path / "controls.md")
    assert (tmp_path / "controls.json").read_text("utf-8") == "{}"


def test_a_cause_that_cannot_be_planted_is_refused(driftscope: Run) -> None:
    done = driftscope("drill", "--controls", "--cause", "off_by_one")
    assert done.returncode == 2
    assert "off_by_one has no planted system" in done.stderr
