"""What a job did and when, and how long one like it still takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.progress import Progress, Told
from driftscope_service.jobs.stages import (
    STAGES_NAME,
    Past,
    Stage,
    StageLog,
    estimate,
    read_stages,
)

HTML = {"accept": "text/html"}


def stages(**began: float) -> tuple[Stage, ...]:
    return tuple(Stage(at, name, "", 0.0) for name, at in began.items())


def test_a_line_per_stage_with_its_time(tmp_path: Path) -> None:
    now = iter([10.0, 10.5, 12.25])
    log = StageLog(tmp_path, clock=lambda: next(now))
    log.note(Progress("importing", 0.0))
    log.note(Progress("importing", 0.1, "more"))
    log.note(Progress("sampling", 0.5, "1/2"))
    found = read_stages(tmp_path)
    assert [(one.at_s, one.stage, one.fraction) for one in found] == [
        (0.5, "importing", 0.0),
        (2.25, "sampling", 0.5),
    ]
    with open(tmp_path / STAGES_NAME, "a", encoding="utf-8") as file:
        file.write('{"at_s": 3')
    assert read_stages(tmp_path) == found
    assert read_stages(tmp_path / "nowhere") == ()


def test_why_and_what_came_of_it_stand_with_the_stage(tmp_path: Path) -> None:
    log = StageLog(tmp_path)
    log.note(Told("control a", 0.3, "", {"why": "a: splits x from y"}))
    log.note(Progress("control a", 0.4, "half"))
    log.note(Told("control a", 0.5, "", {"found": "clean; x 0.9"}))
    log.note(Told("control b", 0.6, "", {"why": "b: splits x from z"}))
    first, second = read_stages(tmp_path)
    assert (first.why, first.found) == ("a: splits x from y", "clean; x 0.9")
    assert (second.why, second.found) == ("b: splits x from z", "")


@pytest.mark.parametrize(
    ("passed", "fraction", "so_far", "past", "left", "basis"),
    [
        # In the stage that began at 12 of 40 s there, 3 s ago here.
        (33.0, 0.9, {"load": 0, "score": 30}, [(40, {"load": 0, "score": 12}, True)], 25, "same"),
        # A stage that it did not have: by the whole.
        (10.0, 0.9, {"other": 5}, [(40, {"load": 0}, True)], 30, "same"),
        # Longer than any: never less than nothing.
        (50.0, 0.9, {"load": 0}, [(40, {"load": 0}, True)], 0, "same"),
        # The middle of three.
        (0.0, 0.0, {}, [(10, {}, True), (30, {}, True), (90, {}, True)], 30, "last 3"),
        # No job asked for the same: by the part that is done, once that says something.
        (30.0, 0.75, {}, [(400, {}, False)], 10, "done"),
        (30.0, 0.05, {}, [(400, {}, False)], 370, "kind and model"),
    ],
)
def test_how_long_it_still_takes(
    passed: float,
    fraction: float,
    so_far: dict[str, float],
    past: Sequence[tuple[float, dict[str, float], bool]],
    left: float,
    basis: str,
) -> None:
    known = [Past(seconds, stages(**began), same) for seconds, began, same in past]
    found = estimate(passed, fraction, stages(**so_far), known)
    assert found is not None
    assert found.left_s == pytest.approx(left) and basis in found.basis


def test_without_a_past_and_at_the_beginning_there_is_none() -> None:
    assert estimate(20.0, 0.05, stages(load=0), []) is None


def test_the_page_says_what_it_does_and_what_that_took_before(running: Any) -> None:
    asleep = running.start("sleep")
    running.wait(asleep, "running")
    page = ""
    while "of a quick probe" not in page:
        page = running.client.get(f"/jobs/{asleep}", headers=HTML).text
    assert "starting a process" in page and "so far" in page
    assert "No estimate yet" in page
    running.client.post(f"/v1/jobs/{asleep}/cancel")
    running.wait(asleep)
    assert "so far" not in running.client.get(f"/jobs/{asleep}", headers=HTML).text
    running.finished_report()
    again = running.start("sleep")
    running.wait(again, "running")
    page = running.client.get(f"/jobs/{again}", headers=HTML).text
    assert "as the last one of this kind and model" in page
    job = next(
        one for one in running.client.get("/v1/jobs").json()["jobs"] if one["state"] == "succeeded"
    )
    kept = (
        (running.data_dir / "jobs" / job["id"] / "attempt-1" / STAGES_NAME).read_text().splitlines()
    )
    assert [json.loads(line)["stage"] for line in kept][:2] == ["starting a process", "succeed"]
