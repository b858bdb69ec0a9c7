"""Whether the engine holds the trainer's weights: a line on both pages, a gauge, the diagnosis."""

from __future__ import annotations

import html
import re
from typing import Any

import numpy as np
import pytest

from driftscope_kernels.on_policy.weights.recorded import KINDS, MATCHING, Kind, WeightsDigest
from driftscope_service.runs.store.steps import StepVerdict, VerdictPoint
from driftscope_service.runs.weights_words import first_differing, weights_line

HTML = {"accept": "text/html"}
ROLLOUT = np.array([-0.1, -0.5, -1.0, -2.0, -0.3])


def digest(kind: Kind, *names: str, tensors: int = 0, **more: Any) -> WeightsDigest:
    return WeightsDigest(3, "a" * 16, "b" * 16, names, kind, tensors or len(names), **more)


def points(*kinds: str | None) -> list[VerdictPoint]:
    return [
        VerdictPoint(step, StepVerdict("at_floor", 1.0, None, None, weights=kind))
        for step, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_line(kind: Kind) -> None:
    line = weights_line(digest(kind, "lm_head.weight"))
    assert line is not None and line.word == ("yes" if kind in MATCHING else "no")


def test_what_the_lines_say() -> None:
    def said(found: WeightsDigest, *kinds: str | None) -> str:
        line = weights_line(found, points(*kinds))
        assert line is not None
        return line.sentence

    assert weights_line(None) is None
    assert said(digest("tied_head_stale", "lm_head.weight"), "equal", "tied_head_stale") == (
        "The engine does not hold the trainer's weights since step 1: lm_head.weight "
        "(tied head kept stale)."
    )
    assert said(digest("stale", "a", "b", versions_behind=2)) == (
        "The engine does not hold the trainer's weights: all tensors are those of an older sync, "
        "2 syncs behind."
    )
    many = digest("tensor_not_sent", "a", "b", "c", "d", tensors=30, versions_behind=1)
    assert "a, b, c, 27 more (not sent: left from an older sync, 1 sync behind)" in said(many)
    assert "known tokens" in said(digest("unknown", function_diff=0.5))
    assert said(digest("rounded_masters", unseen_tensors=1)).endswith(
        "rounded to the engine's dtype; 1 tensor cannot be read."
    )


def test_since_when() -> None:
    assert first_differing(points("stale", "equal", "stale", "unknown")) == 2
    assert first_differing(points("stale", None, "stale")) == 2
    assert first_differing(points("stale", "rounded_masters")) is None
    assert first_differing([VerdictPoint(0, None)]) is None


def push(running: Any, step: int, found: WeightsDigest | None) -> dict[str, Any]:
    metadata = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}
    if found is not None:
        metadata["weights_digest"] = str(found)
    body = {
        "metadata": metadata,
        "rollout_logprobs": [ROLLOUT.tolist()],
        "trainer_logprobs": [(ROLLOUT - 0.01).tolist()],
    }
    answer = running.client.post(f"/v1/runs/r/steps/{step}/logprobs", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def line_on(running: Any, path: str) -> str | None:
    text = running.client.get(path, headers=HTML).text
    found = re.search(r'<p id="weights">(.*?)</p>', text, re.DOTALL)
    return None if found is None else html.unescape(re.sub("<.*?>", "", found[1]))


def gauge(running: Any) -> str | None:
    text = running.client.get("/metrics").text
    found = re.search(r'^driftscope_run_weights_match\{run="r"\} (\S+)$', text, re.MULTILINE)
    return None if found is None else found[1]


def test_a_run_whose_head_goes_stale(running: Any) -> None:
    push(running, 0, None)
    assert line_on(running, "/runs/r") is None and gauge(running) is None
    push(running, 1, digest("equal"))
    assert gauge(running) == "1.0"
    equal = "yes The engine holds the trainer's weights: every tensor has the same bits."
    assert line_on(running, "/runs/r") == line_on(running, "/runs/r/steps/1") == equal
    for step in (2, 3):
        answer = push(running, step, digest("tied_head_stale", "lm_head.weight"))
        diagnosis = answer["diagnosis"]
        assert diagnosis["verdict"] == "bug_like"
        assert diagnosis["causes"][0]["name"] == "dropped_tensor_on_reload"
    assert gauge(running) == "0.0"
    assert line_on(running, "/runs/r") == (
        "no The engine does not hold the trainer's weights since step 2: lm_head.weight "
        "(tied head kept stale)."
    )
    assert line_on(running, "/runs/r/steps/3") == (
        "no The engine does not hold the trainer's weights: lm_head.weight (tied head kept stale)."
    )
    stored = running.client.get("/v1/runs/r/steps/3").json()["metadata"]["weights_digest"]
    assert stored == str(digest("tied_head_stale", "lm_head.weight"))
    push(running, 4, digest("equal"))
    assert gauge(running) == "1.0" and line_on(running, "/runs/r") == equal


def test_a_name_is_shown_as_text(running: Any) -> None:
    push(running, 0, digest("unknown", "<script>alert(1)</script>"))
    assert "<script>alert" not in running.client.get("/runs/r", headers=HTML).text
