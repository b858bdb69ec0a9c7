"""POST /v1/probes/explain: quotas, the report on its page, the way there from a step."""

from __future__ import annotations

from typing import Any

import pytest
from markupsafe import escape

HTML = {"accept": "text/html"}
MODEL = "tiny-random-llama"


def test_a_model_is_explained_and_shown(running: Any) -> None:
    asked = {"model": MODEL, "trainer_model": "smollm2-135m", "phase": "decode"}
    answer = running.client.post("/v1/probes/explain", json=asked)
    assert answer.status_code == 202, answer.text
    job = running.wait(answer.json()["id"])
    assert job["state"] == "succeeded", job
    report = running.client.get(job["links"]["report"]).json()
    assert report["request"]["phase"] == "decode"
    assert report["request"]["trainer_model"] == "smollm2-135m"
    # The probe finds models of the catalogue itself.
    assert report["notes"] == ["found at None, None"]
    page = running.client.get(f"/probes/{job['links']['report'].rsplit('/', 1)[1]}", headers=HTML)
    assert page.status_code == 200 and str(escape(report["sentence"])) in page.text
    shown = running.client.get(f"/jobs/{job['id']}", headers=HTML).text
    assert str(escape(report["ops"][0]["why"])) in shown
    listed = running.client.get("/probes?kind=explain", headers=HTML).text
    assert str(escape(report["sentence"])) in listed
    metrics = running.client.get("/metrics").text
    assert f'driftscope_explain_op_equal_ratio{{model="{MODEL}",op="rotary"}}' in metrics
    verdict = report["verdict"]
    assert f'driftscope_explain_verdict{{model="{MODEL}",verdict="{verdict}"}} 1' in metrics


def test_a_step_leads_to_the_form(running: Any, pushing: Any) -> None:
    body = pushing.body((30, 50), metadata={"model": MODEL})
    assert pushing.push(body, run="r", step=7).status_code in (200, 201)
    button = f"/probes/new/explain?model={MODEL}"
    assert f'href="{button}"' in running.client.get("/runs/r/steps/7", headers=HTML).text
    form = running.client.get(button, headers=HTML).text
    assert f"driftscope explain --model {MODEL}" in form


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "none"}, "there is no model"),
        ({"trainer_model": "none"}, "/trainer_model"),
        ({"trainer_dtype": "int8"}, "trainer_dtype"),
        ({"phase": "training"}, "phase"),
        ({"engine": {"kind": "vllm-server"}}, "--engine-server"),
        ({"engine": {"server_url": "http://127.0.0.1"}}, "server_url"),
        ({"engine": {"threads": 900}}, "DRIFTSCOPE_MAX_THREADS"),
        ({"trainer": {"micro_batch": 4}}, "micro_batch"),
        ({"sampling": {"max_tokens": 100_000}}, "DRIFTSCOPE_MAX_RESPONSE_TOKENS"),
    ],
)
def test_what_is_refused(running: Any, fields: dict[str, Any], told: str) -> None:
    answer = running.client.post("/v1/probes/explain", json={"model": MODEL, **fields})
    assert answer.status_code == 422 and told in answer.text, answer.text
