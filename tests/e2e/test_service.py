"""The service with the real probe: from a POST to a report, a page and metrics."""

import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ..service_process import service_process

pytestmark = pytest.mark.slow
DRIFTSCOPE = Path(sys.executable).with_name("driftscope")
PATIENCE_S = 300.0
NEEDS_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="needs vllm")


@dataclass(frozen=True, slots=True)
class Service:
    client: httpx.Client
    pid: int


@pytest.fixture
def service(tmp_path: Path, tiny_llama: Path) -> Iterator[Service]:
    command = [str(DRIFTSCOPE), "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    with (
        service_process(command, os.environ) as started,
        httpx.Client(base_url=started.address, timeout=30) as client,
    ):
        yield Service(client, started.process.pid)


def finished(client: httpx.Client, location: str) -> tuple[dict[str, Any], list[float]]:
    fractions: list[float] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(location).json()
        fractions.append(job["progress"]["fraction"] if job["progress"] else 0.0)
        if job["state"] not in ("queued", "running"):
            return job, fractions
        time.sleep(0.5)
    raise AssertionError("the job did not end")


@NEEDS_VLLM
def test_a_probe_through_the_service(service: Service) -> None:
    client = service.client
    body = {
        "model": "tiny-random-llama",
        "prompts": 2,
        "engine_dtypes": ["bf16"],
        "trainer_dtypes": ["bf16", "fp32"],
        "sampling": {"max_tokens": 8},
        "engine": {"threads": 1},
        "trainer": {"threads": 1, "headroom": False},
    }
    accepted = client.post("/v1/probes/paired", json=body)
    assert accepted.status_code == 202
    job, fractions = finished(client, accepted.headers["location"])
    assert job["state"] == "succeeded", job
    assert fractions == sorted(fractions)
    assert any(0 < fraction < 1 for fraction in fractions)
    report = client.get(job["links"]["report"]).json()
    assert len(report["grid"]) == 2
    page = client.get(job["links"]["report_html"])
    assert page.headers["content-type"].startswith("text/html")
    assert "tiny-random-llama" in page.text
    mean = report["grid"][1]["comparison"]["abs_diff_mean"]
    exported = re.search(
        r'^driftscope_paired_logprob_abs_diff_mean_nats\{(.*trainer_dtype="fp32".*)\} (\S+)$',
        client.get("/metrics").text,
        re.MULTILINE,
    )
    assert exported is not None
    assert 'engine_dtype="bf16"' in exported[1]
    assert float(exported[2]) == pytest.approx(mean)


@NEEDS_VLLM
def test_a_cancelled_probe_ends_its_engine(service: Service) -> None:
    client = service.client
    body = {
        "model": "tiny-random-llama",
        "prompts": 64,
        "engine_dtypes": ["fp32"],
        "sampling": {"max_tokens": 400},
        "engine": {"threads": 1, "batch_size": 1},
    }
    # The processes that analyse pushed steps stay; those of the probe must not.
    before = set(psutil.Process(service.pid).children(recursive=True))
    location = client.post("/v1/probes/paired", json=body).headers["location"]
    deadline = time.monotonic() + PATIENCE_S
    while "sampling" not in str(client.get(location).json()["progress"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert client.post(f"{location}/cancel").status_code == 202
    job, _ = finished(client, location)
    assert job["state"] == "cancelled"
    assert set(psutil.Process(service.pid).children(recursive=True)) <= before


def test_a_kernel_check_through_the_service(service: Service) -> None:
    """torch's fp32 linear adds in another order for the last rows of a batch."""
    client = service.client
    body = {
        **{"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"]},
        **{"threads": [1], "quick": True},
    }
    accepted = client.post("/v1/probes/kernels", json=body)
    assert accepted.status_code == 202
    job, fractions = finished(client, accepted.headers["location"])
    assert (job["state"], job["kind"], job["model"]) == ("succeeded", "kernels", None), job
    assert fractions == sorted(fractions)
    report = client.get(job["links"]["report"]).json()
    assert report["planted"]["missed"] == []
    eager = next(each for each in report["verdicts"] if each["implementation"] == "eager")
    assert eager["verdict"] == "REFUTED"
    assert "batch sizes 1, 2" in eager["counterexample"]["evidence"]
    page = client.get(job["links"]["report_html"])
    assert page.status_code == 200
    assert "torch/linear/eager" in page.text and "--replay" in page.text
    metrics = client.get("/metrics").text
    labels = 'dtype="fp32",op="linear",target="torch",threads="1",verdict="REFUTED"'
    assert f"driftscope_kernel_verdict{{{labels}}} 1.0" in metrics
    total, caught = (
        re.search(rf"^driftscope_kernel_planted_{name} (\S+)$", metrics, re.MULTILINE)
        for name in ("faults", "caught_faults")
    )
    assert total is not None and caught is not None and total[1] == caught[1] != "0.0"


def test_a_target_that_is_not_there_is_refused_at_once(service: Service) -> None:
    refused = service.client.post("/v1/probes/kernels", json={"targets": ["acme"], "quick": True})
    assert refused.status_code == 422
    assert "acme" in refused.json()["detail"]
    assert "torch" in refused.json()["remedy"]
