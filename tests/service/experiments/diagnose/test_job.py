"""POST /v1/probes/diagnose: quotas, the step that it is of, the live steps, links both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from markupsafe import escape

HTML = {"accept": "text/html"}
MODEL = "tiny-random-llama"
LENGTHS = (30, 50)


def step_body(pushing: Any, **changed: Any) -> bytes:
    tensors = {
        "token_ids": np.arange(sum(LENGTHS), dtype=np.int32),
        "prompt_lengths": np.array([3, 2], np.int32),
        "prompt_token_ids": np.array([5, 6, 7, 8, 9], np.int32),
        **changed,
    }
    metadata = {"model": MODEL, "rollout_dtype": "bf16", "trainer_dtype": "bf16"}
    body: bytes = pushing.body(LENGTHS, metadata=metadata, **tensors)
    return body


def test_a_step_is_diagnosed_and_both_pages_lead_to_each_other(running: Any, pushing: Any) -> None:
    assert pushing.push(step_body(pushing), run="r", step=7).status_code in (200, 201)
    before = running.client.get("/runs/r/steps/7", headers=HTML).text
    button = f"/probes/new/diagnose?model={MODEL}&amp;run=r&amp;step=7"
    assert button in before
    form = running.client.get(button.replace("&amp;", "&"), headers=HTML).text
    assert 'name="run"' in form and 'value="r"' in form and 'value="7"' in form
    answer = running.client.post(
        "/v1/probes/diagnose", json={"model": MODEL, "run": "r", "step": 7, "budget": 60}
    )
    assert answer.status_code == 202, answer.text
    job = running.wait(answer.json()["id"])
    assert job["state"] == "succeeded", job
    report = running.client.get(job["links"]["report"]).json()
    assert report["source"] == {"run": "r", "step": 7}
    # What the step brought to the process, prompts included.
    assert report["notes"] == ["brought 2 prompts"]
    page_path = f"/probes/{job['links']['report'].rsplit('/', 1)[1]}"
    page = running.client.get(page_path, headers=HTML).text
    assert '<a href="/runs/r/steps/7">r step 7</a>' in page
    for step in report["steps"]:
        assert step["control"] in page and str(escape(step["title"])) in page
    after = running.client.get("/runs/r/steps/7", headers=HTML).text
    assert f'<a href="{page_path}">' in after
    assert page_path not in running.client.get("/runs/r", headers=HTML).text
    # Every control with its reason, and what came of it, on the page of the job.
    shown = running.client.get(f"/jobs/{job['id']}", headers=HTML).text
    assert shown.count('class="found"') == len(report["steps"]) > 2
    assert "splits" in shown and "it was clean" in shown


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"run": "r"}, "run and step belong together"),
        ({"run": "r", "step": 3}, "has no step 3"),
        ({"model": "none"}, "there is no model"),
        ({"trainer_model": "none"}, "/trainer_model"),
        ({"older_models": [MODEL, "none"]}, "/older_models/1"),
        ({"adapter": "/tmp"}, "/adapter"),
        ({"control": ["dropout_off=maybe"]}, "NAME=clean or NAME=dirty"),
        ({"control": {"dropout_off": "maybe"}}, "NAME=clean or NAME=dirty"),
        ({"engine": {"kind": "vllm-server"}}, "/engine_endpoint"),
        ({"budget": 86_400}, "DRIFTSCOPE_JOB_TIME_LIMIT_SECONDS"),
        ({"sampling": {"max_tokens": 100_000}}, "DRIFTSCOPE_MAX_RESPONSE_TOKENS"),
    ],
)
def test_what_is_refused(running: Any, fields: dict[str, Any], told: str) -> None:
    answer = running.client.post("/v1/probes/diagnose", json={"model": MODEL, **fields})
    assert answer.status_code == 422 and told in answer.text, answer.text


def test_a_step_without_prompts_brings_its_diagnosis_alone(running: Any, pushing: Any) -> None:
    names = ("prompt_lengths", "prompt_token_ids", "token_ids")
    body = pushing.body(LENGTHS, metadata={"model": "another"})
    assert all(name.encode() not in body for name in names)
    assert pushing.push(body, run="r", step=1).status_code in (200, 201)
    # A model that the service does not have: no button.
    assert "/probes/new/diagnose" not in running.client.get("/runs/r/steps/1", headers=HTML).text
    brought = running.service.step_brought("r", 1)
    assert brought is not None and brought["recorded"] is None
    assert brought["diagnosis"]["verdict"] and running.service.step_brought("r", 2) is None


def test_outcomes_may_be_given_as_an_object(running: Any) -> None:
    asked = {"model": MODEL, "control": {"dropout_off": "clean"}}
    answer = running.client.post("/v1/probes/diagnose", json=asked)
    assert answer.status_code == 202, answer.text
    job = running.wait(answer.json()["id"])
    report = running.client.get(job["links"]["report"]).json()
    assert report["request"]["control"] == ["dropout_off=clean"] and report["source"] is None
