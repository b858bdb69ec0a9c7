"""`driftscope drill` as a user runs it, and what it prints of a report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from driftscope_probes.diagnosis.drill.course_score import CourseAnswer
from driftscope_probes.diagnosis.drill.report import AnsweredCase, DrillReport
from driftscope_probes.diagnosis.drill.request import DrillRequest
from driftscope_probes.diagnosis.drill.score import CauseScore, Group, Score
from driftscope_service.cli.drill_tables import command, markdown, print_drill

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "--cases 2 --runs 0 --causes sentinel_or_nan_logprob --models tiny-llama".split()

SCORE = Score(
    cases=3,
    healthy=1,
    top1=2 / 3,
    top1_alike=1.0,
    top3=1.0,
    healthy_false_alarms=0.0,
    unseen_named_unexplained=None,
    calibration_error=0.05,
    by_cause={
        "off_by_one": CauseScore(2, 0.5, 1.0, 0.75, None, {"dropout_active": 1}),
        "pad_attended": CauseScore(1, 1.0, 1.0, None, 1.0, {}),
    },
    by_way={"a": Group(3, 2 / 3)},
    by_setting={"tiny-llama bf16/bf16": Group(3, 2 / 3)},
    confusion={
        "healthy": {"at_floor": 1},
        "off_by_one": {"off_by_one": 1, "dropout_active": 1},
        "pad_attended": {"pad_attended": 1},
    },
)
REPORT = DrillReport(
    SCORE,
    (AnsweredCase("f", "off_by_one", "a", 0.5, "tiny", False, "off_by_one", (), 0.9, None),),
    (
        CourseAnswer(None, "a", 0.0, "tiny", (), 0.0, (0.5, 0.4)),
        CourseAnswer("resume_mismatch", "a", 0.5, "tiny", ("resume_mismatch",), 0.9, (0.5, 9.0)),
        CourseAnswer("resume_mismatch", "b", 0.5, "tiny", ("sub_ulp_update",), 0.4, (0.5, None)),
    ),
    DrillRequest(cases=3, runs=3, causes=["off_by_one", "pad_attended"], seed=7),
    {
        "python": "3.13.1",
        "platform": "Linux",
        "packages": {"torch": "2.10.0", "numpy": "2.4.0"},
        "hardware": {"cpu": "a CPU", "cores": 2},
    },
    61.0,
)


def test_the_terminal_shows_figures_causes_and_what_was_missed() -> None:
    console = Console(file=StringIO(), width=160)
    print_drill(REPORT, console)
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "3 faults and 1 healthy pair in 61 s" in lines
    assert "right cause first 66.7% at least 92%" in lines
    assert "left-out causes unexplained – at least 80%" in lines
    assert "off_by_one 2 50.0% 100.0% 0.75 – dropout_active 1" in lines
    assert "off_by_one off_by_one 1, dropout_active 1" in lines
    assert "resume_mismatch resume_mismatch 1, nothing 1" in lines
    assert lines[-1] == "Missed: right cause first: 66.7%, at least 92% is asked."


def test_the_page_names_machine_and_command() -> None:
    page = markdown(REPORT, date(2026, 11, 29))
    asked = "driftscope drill --cases 3 --runs 3 --causes off_by_one,pad_attended --seed 7"
    assert command(REPORT) == asked
    assert f"- command: `{asked} --markdown docs/drill.md`" in page
    assert "- CPU: a CPU, 2 cores; Linux" in page
    assert "| pad_attended | 1 | 100.0% | 100.0% | – | 100.0% |  |" in page
    assert "2 runs with a fault, right cause named in 50.0%" in page
    assert "| resume_mismatch | resume_mismatch 1, nothing 1 |" in page
    # One column per answer, all with their counts: the names stand below.
    (injected,) = [line for line in page.splitlines() if line.startswith("| injected |")]
    (row,) = [
        line for line in page.splitlines() if line.startswith("| off_by_one | ") and "%" not in line
    ]
    answers = page.split("Answers: ")[1].split(".")[0].split(", ")
    assert len(answers) == 4 and injected.count("|") == row.count("|") == 6
    cells = dict(zip(answers, row.split(" | ")[1:], strict=True))
    assert {name.split()[1]: cell.strip(" |") for name, cell in cells.items()} == {
        "at_floor": "",
        "dropout_active": "1",
        "off_by_one": "1",
        "pad_attended": "",
    }


def test_a_page_without_misses_says_none() -> None:
    good = replace(REPORT, score=replace(SCORE, top1=0.95))
    assert "missed" not in markdown(good, date(2026, 11, 29))


@pytest.mark.slow
def test_a_small_drill_prints_json_writes_its_page_and_keeps_its_files(
    driftscope: Run, tmp_path: Path
) -> None:
    done = driftscope("drill", *SMALL, "--json", "--markdown", "page.md", "--out", "kept")
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert (result["cases"], result["top1"]) == (2, 1.0)
    assert done.returncode == (1 if result["shortfalls"] else 0)
    assert result["by_cause"]["sentinel_or_nan_logprob"]["cases"] == 2
    assert "driftscope drill --cases 2 --runs 0" in (tmp_path / "page.md").read_text(
        encoding="utf-8"
    )
    kept = sorted((tmp_path / "kept").glob("*.safetensors"))
    assert [file.name for file in kept] == sorted(answer["file"] for answer in result["answers"])
    answered = driftscope("analyze", str(kept[-1]), "--json")
    assert (
        json.loads(answered.stdout)["diagnosis"]["causes"][0]["name"] == "sentinel_or_nan_logprob"
    )
    assert "injecting and diagnosing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--causes", "nonsense"), "off_by_one"),
        (("--models", "nonsense"), "tiny-llama"),
        (("--out", "."), "exists already"),
    ],
)
def test_what_could_not_run_says_why_and_exits_2(
    driftscope: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "something").touch()
    done = driftscope("drill", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and "What to do:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_in_no_folder_is_refused_before_anything_runs(driftscope: Run) -> None:
    done = driftscope("drill", "--markdown", "nowhere/page.md")
    assert done.returncode == 2 and "there is no folder" in done.stderr
