"""What run and step pages say of a diagnosis, from steps in the store, without a browser."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from driftscope_service.runs.ingest.analysis import step_verdict
from driftscope_service.runs.store.runs import RunRepository
from driftscope_service.runs.store.steps import NewStep, StepRepository

HTML = {"accept": "text/html"}


@pytest.fixture
def diagnosed(running: Any, pushing: Any, diagnoses: Any) -> Any:
    """Run r: step 0 as an older version stored it, 1 at the floor, 2 and 3 bug-like; run u: its
    one step unexplained. Comparisons are those of a step that was pushed."""
    analysis = pushing.push(pushing.same(), run="source", step=0).json()
    names = ("comparison", "aliases", "presets", "crossed_limits", "profiles")
    said = [("r", 0, None), ("r", 1, diagnoses.at_floor), ("r", 2, diagnoses.bug_like)]
    said += [("r", 3, diagnoses.bug_like), ("u", 0, diagnoses.unexplained)]
    with running.service.database.write() as connection:
        for run, step, diagnosis in said:
            stored = None if diagnosis is None else diagnosis.to_dict()
            comparison, *rest = names
            document = {comparison: analysis[comparison], "diagnosis": stored}
            document |= {name: analysis[name] for name in rest}
            new = NewStep(
                step, "0" * 64, 0, 1, [], 18, 4, {"model": "m"}, [], {"abs_diff_mean": 0.1},
                json.dumps(document).encode(), step_verdict(diagnosis),
            )  # fmt: skip
            runs = RunRepository(connection)
            found, _ = runs.put(run, {})
            steps = StepRepository(connection)
            steps.add(found.number, new)
            stored_step = steps.get(run, step)
            assert stored_step is not None
            steps.dropped(stored_step.number)  # its tokens were never there
            runs.step_completed(found.number, new)
    return running


def page(running: Any, path: str) -> str:
    answer = running.client.get(path, headers=HTML)
    assert answer.status_code == 200, answer.text[:300]
    return str(answer.text)


@pytest.mark.parametrize("path", ["/runs/r", "/runs/r/steps/3"])
def test_the_page_leads_with_sentence_cause_and_what_to_do(diagnosed: Any, path: str) -> None:
    text = page(diagnosed, path)
    sentence = "The rollout sampled at temperature 0.61 &amp; the trainer scored at 1."
    first = re.search(r'<p class="sentence">(.*?)</p>', text, re.DOTALL)
    assert first is not None and sentence in first[1] and "bug-like" in first[1]
    for said in (
        "11.2 times the prior floor (bf16 × bf16",
        "<code>temperature_semantics</code>",
        "confidence 0.93",
        "temperature_semantics evidence 0",
        '<td class="value">0.612</td>',
        "none &lt;of this&gt;",
        "Set what temperature_semantics names",
        "Score the same tokens with temperature_semantics",
        'href="/causes/temperature_semantics"',
        "2 other candidates",
        "rope_config",
        "entropy; rank; routed_experts; cached_tokens",
        'source="/runs/r/steps/3/plots/evidence.json"',
    ):
        assert said in text, said


def test_the_plot_of_the_evidence_as_json_and_csv(diagnosed: Any) -> None:
    found = diagnosed.client.get("/runs/r/steps/3/plots/evidence.json").json()
    assert found["kind"] == "line" and found["x_label"] == "log p (nats)"
    assert found["rows"] == [[-3.0, 0.4], [-2.0, None], [-1.0, 0.1]]
    text = diagnosed.client.get("/runs/r/steps/3/plots/evidence.csv").text
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["log p (nats)", "Δ (nats)"], ["-3.0", "0.4"], ["-2.0", ""], ["-1.0", "0.1"]]


@pytest.mark.parametrize("step", [0, 1])
def test_without_a_plot_there_is_none(diagnosed: Any, step: int) -> None:
    path = f"/runs/r/steps/{step}"
    assert "plots/evidence" not in page(diagnosed, path)
    assert diagnosed.client.get(f"{path}/plots/evidence.json").status_code == 404


def test_a_step_of_an_older_version_leads_with_its_limits(diagnosed: Any) -> None:
    text = page(diagnosed, "/runs/r/steps/0")
    first = re.search(r'<p class="sentence">(.*?)</p>', text, re.DOTALL)
    assert first is not None and "published limit" in first[1]


def test_unexplained_is_said_with_what_stood_out(diagnosed: Any) -> None:
    text = page(diagnosed, "/runs/u")
    assert "no cause reaches the confidence of an answer" in text
    assert "mean of Δ over its error" in text and "9.10" in text
    assert "1 other candidate<" in text


def test_the_run_shows_verdict_and_cause_over_its_steps(diagnosed: Any) -> None:
    text = page(diagnosed, "/runs/r")
    assert '<svg class="strip"' in text
    table = text[text.index('id="verdicts"') :]
    said = re.findall(
        r'<span class="state \w+">([^<]*)</span>(?: <a [^>]*><code>([^<]*)</code>)?', table
    )
    assert said[:3] == [
        ("bug-like", "temperature_semantics"),
        ("at the floor", "bf16_rounding_tail"),
        ("no diagnosis", ""),
    ]


def test_the_runs_say_verdict_and_cause(diagnosed: Any) -> None:
    text = page(diagnosed, "/runs")
    row = text[text.index('href="/runs/r"') :]
    assert "bug-like" in row[:800] and "<code>temperature_semantics</code>" in row[:800]
    other = text[text.index('href="/runs/u"') :]
    assert "above the floor" in other[:800] and "<code>unexplained</code>" in other[:800]


def test_the_series_has_a_verdict_per_step(diagnosed: Any) -> None:
    steps = diagnosed.client.get("/v1/runs/r/steps").json()["steps"]
    assert [one["verdict"] for one in steps][0] is None
    assert steps[1]["verdict"] == {
        "verdict": "at_floor", "excess": 0.93, "cause": "bf16_rounding_tail", "confidence": 0.97,
    }  # fmt: skip
    assert steps[3]["verdict"]["cause"] == "temperature_semantics"
    unexplained = diagnosed.client.get("/v1/runs/u/steps").json()["steps"][0]["verdict"]
    assert (unexplained["cause"], unexplained["confidence"]) == ("unexplained", None)


def test_a_run_without_dtypes_says_which_limits_follow(running: Any, pushing: Any) -> None:
    known = {"model": "m", "rollout_dtype": "bf16", "trainer_dtype": "fp32"}
    for run, metadata in (("said", known), ("half", {**known, "trainer_dtype": ""}), ("not", {})):
        body = pushing.body(metadata={"model": "m", **{k: v for k, v in metadata.items() if v}})
        assert pushing.push(body, run=run).status_code == 201
    told = "is not known: only the loosest"
    assert told not in page(running, "/runs/said")
    half, nothing = page(running, "/runs/half"), page(running, "/runs/not")
    assert f"The dtype of the trainer {told}" in half and "<code>rollout_dtype" not in half
    assert f"The dtype of the rollout and of the trainer {told}" in nothing
    assert running.client.get("/docs/limits", headers=HTML).status_code == 200
