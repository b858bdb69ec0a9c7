"""POST /v1/probes/paired: what is accepted, what is refused and where it says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def refused(running: Any, **fields: Any) -> dict[str, Any]:
    answer = running.post("succeed", **fields)
    assert answer.status_code == 422, answer.text
    assert running.client.get("/v1/jobs").json()["jobs"] == []
    problem: dict[str, Any] = answer.json()
    return problem


def test_accepted(running: Any) -> None:
    answer = running.post("sleep")
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert int(answer.headers["retry-after"]) > 0
    assert re.fullmatch(r"job_[0-9A-Z]{26}", job["id"])
    assert (job["state"], job["kind"], job["model"]) == ("queued", "paired", "tiny-random-llama")
    assert job["links"]["report"] is None
    assert running.client.get(answer.headers["location"]).status_code == 200


@pytest.mark.parametrize(
    "model",
    [
        "no-such-model",
        "/etc",
        "../tiny-random-llama",
        "~/model",
        "HuggingFaceTB/SmolLM2-135M",
        "https://example.org/model",
        "file:///etc",
        "TINY-RANDOM-LLAMA",
        "tiny-random-llama ",
    ],
)
def test_only_names_that_the_operator_offers(running: Any, model: str) -> None:
    problem = refused(running, model=model)
    assert problem["errors"][0]["pointer"] == "/model"
    assert "tiny-random-llama" in problem["remedy"]


def test_a_folder_that_is_offered_cannot_be_named_by_its_path(
    run_service: Any, tmp_path: Path
) -> None:
    with run_service(models={"mine": tmp_path}) as running:
        refused(running, model=str(tmp_path))
        assert running.post("sleep", model="mine").status_code == 202


@pytest.mark.parametrize("name", ["server_url", "server_model"])
def test_addresses_of_a_client_are_refused(running: Any, name: str) -> None:
    engine = {"kind": "vllm-server", name: "http://169.254.169.254/latest"}
    problem = refused(running, engine=engine)
    assert problem["errors"][0]["pointer"] == f"/engine/{name}"
    assert "engine_endpoint" in problem["errors"][0]["message"]


def test_a_null_address_is_no_address(running: Any) -> None:
    engine = {"server_url": None, "server_model": None}
    assert running.post("sleep", engine=engine).status_code == 202


@pytest.mark.parametrize(
    ("kind", "name", "part"),
    [
        ("vllm-server", None, "only then"),
        ("vllm", "gpu-1", "only then"),
        ("vllm-server", "gpu-2", "gpu-1"),
    ],
)
def test_endpoints_are_names_of_the_settings(
    run_service: Any, kind: str, name: str | None, part: str
) -> None:
    endpoints = {"gpu-1": {"url": "http://127.0.0.1:9", "model": "m"}}
    with run_service(engine_endpoints=endpoints) as running:
        problem = refused(running, engine={"kind": kind}, engine_endpoint=name)
        assert problem["errors"][0]["pointer"] == "/engine_endpoint"
        assert part in problem["remedy"]
        assert "127.0.0.1:9" not in str(problem)


@pytest.mark.parametrize(
    ("setting", "limit", "fields", "pointer"),
    [
        ("max_response_tokens", 64, {"sampling": {"max_tokens": 65}}, "/sampling/max_tokens"),
        (
            "max_response_tokens",
            100,
            {"prompts": 51, "sampling": {"max_tokens": 2}},
            "/sampling/max_tokens",
        ),
        ("max_resamples", 10, {"resamples": 11}, "/resamples"),
        ("max_threads", 2, {"engine": {"threads": 3}}, "/engine/threads"),
        ("max_threads", 2, {"trainer": {"threads": 3}}, "/trainer/threads"),
        ("max_kv_cache_gib", 1.0, {"engine": {"kv_cache_gib": 1.5}}, "/engine/kv_cache_gib"),
    ],
)
def test_limits_of_the_operator(
    run_service: Any, setting: str, limit: float, fields: dict[str, Any], pointer: str
) -> None:
    with run_service(**{"max_resamples": 20_000, setting: limit}) as running:
        fields = {"resamples": 0, **fields}
        problem = refused(running, **fields)
        assert problem["errors"][0]["pointer"] == pointer
        assert f"DRIFTSCOPE_{setting.upper()}" in problem["remedy"]


def test_a_request_at_its_limits_is_accepted(run_service: Any) -> None:
    with run_service(max_response_tokens=64, max_threads=2, max_kv_cache_gib=1.0) as running:
        answer = running.post(
            "sleep",
            sampling={"max_tokens": 64},
            engine={"threads": 2, "kv_cache_gib": 1.0},
            trainer={"threads": 2},
        )
        assert answer.status_code == 202


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"prompts": []}, "/prompts"),
        ({"prompts": 0}, "/prompts"),
        ({"prompts": [" "]}, "/prompts"),
        ({"engine_dtypes": ["fp8"]}, "/engine_dtypes/0"),
        ({"engine_dtypes": []}, "/engine_dtypes"),
        ({"trainer_dtypes": ["bf16", "bf16"]}, "/trainer_dtypes"),
        ({"trainer_dtypes": ["int8"]}, "/trainer_dtypes"),
        ({"sampling": {"temperature": -1}}, "/sampling/temperature"),
        ({"output": "/tmp"}, "/output"),
        ({"engine": {"trust_remote_code": True}}, "/engine/trust_remote_code"),
    ],
)
def test_a_wrong_field_is_pointed_at(running: Any, fields: dict[str, Any], pointer: str) -> None:
    assert refused(running, **fields)["errors"][0]["pointer"].startswith(pointer)
