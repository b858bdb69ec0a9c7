"""POST /v1/probes/kernels: what is accepted and refused, the job, its report as JSON and page."""

from __future__ import annotations

from typing import Any

import pytest


def test_accepted(running: Any) -> None:
    answer = running.post_kernels()
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["kind"], job["model"]) == ("kernels", None)


def test_everything_may_be_left_out(run_service: Any) -> None:
    with run_service(max_threads=1) as running:
        # The quick probe cannot do everything; here it is the request that counts.
        job = running.client.post("/v1/probes/kernels", json={}).json()
        running.wait(job["id"])
        log = (running.data_dir / "jobs" / job["id"] / "attempt-1" / "request.json").read_text()
    assert '"threads": [1]' in log and '"targets": null' in log


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"targets": []}, "/targets"),
        ({"targets": ["../etc"]}, "/targets/0"),
        ({"targets": ["x" * 65]}, "/targets/0"),
        ({"targets": ["torch"] * 2}, "/targets"),
        ({"targets": ["torch", "torhc"]}, "/targets/1"),
        ({"ops": [f"op{number}" for number in range(65)]}, "/ops"),
        ({"dtypes": ["fp8"]}, "/dtypes/0"),
        ({"threads": [0]}, "/threads/0"),
        ({"threads": [1, 65]}, "/threads/1"),
        ({"threads": list(range(1, 10))}, "/threads"),
        ({"quick": 7}, "/quick"),
        ({"seed": -1}, "/seed"),
        ({"seed": 2**31}, "/seed"),
        ({"model": "smollm2-135m"}, "/model"),
        ({"replay": {}}, "/replay"),
    ],
)
def test_a_wrong_field_is_pointed_at(running: Any, fields: dict[str, Any], pointer: str) -> None:
    answer = running.post_kernels(**fields)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert running.client.get("/v1/jobs").json()["jobs"] == []


def test_threads_are_limited_by_the_operator(run_service: Any) -> None:
    with run_service(max_threads=2) as running:
        assert running.post_kernels(threads=[1, 2]).status_code == 202
        problem = running.post_kernels(threads=[1, 3]).json()
        assert problem["errors"][0]["pointer"] == "/threads/1"
        assert "DRIFTSCOPE_MAX_THREADS" in problem["remedy"]


def test_a_killed_checker_says_what_helps(running: Any) -> None:
    job = running.wait(running.post_kernels(ops=["crash"]).json()["id"])
    assert job["state"] == "failed"
    assert "one target and op" in job["error"]["remedy"]
    assert "prompts" not in job["error"]["remedy"]


def test_both_kinds_stand_in_one_list(running: Any) -> None:
    running.finished_report()
    running.finished_kernels_report()
    jobs = running.client.get("/v1/jobs").json()["jobs"]
    assert [(job["kind"], job["model"]) for job in jobs] == [
        ("kernels", None),
        ("paired", "tiny-random-llama"),
    ]


def test_the_report_as_json(running: Any) -> None:
    report = running.finished_kernels_report()
    answer = running.client.get(f"/v1/reports/{report}")
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["kind"] == "kernels"
    assert [verdict["verdict"] for verdict in body["verdicts"]] == ["REFUTED"]


def test_the_report_as_a_page(running: Any) -> None:
    report = running.finished_kernels_report(targets=["driftscope", "torch"])
    page = running.client.get(f"/reports/{report}")
    assert page.status_code == 200
    assert "script" not in page.headers["content-security-policy"]
    assert "<script" not in page.text
    # Refuted ones first; text of the report is never markup.
    assert page.text.index("torch/linear/eager") < page.text.index("driftscope/linear/eager")
    assert "&lt;b&gt;1&lt;/b&gt;" in page.text and "<b>1" not in page.text
    assert "0xc017b3eb" in page.text and "--replay" in page.text
    assert "Planted faults caught: 9 of 9." in page.text
    assert "driftscope kernels check --target driftscope,torch --op linear" in page.text
    assert "prefers-color-scheme: dark" in page.text


def test_a_missed_fault_is_shown(running: Any) -> None:
    page = running.client.get(f"/reports/{running.finished_kernels_report('vllm', seed=1)}").text
    assert "Missed: a." in page
    assert "Counterexamples" not in page
