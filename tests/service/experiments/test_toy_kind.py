"""A kind that no file of ours knows, from its own package: every part of the service has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from driftscope_service.app import create_app
from driftscope_service.cli.main import build_app
from driftscope_service.experiments.command_words import same_request
from driftscope_service.experiments.kind import PLAIN_POLICY
from driftscope_service.experiments.registry import EXPERIMENTS, load_kinds
from driftscope_service.service import open_service

from .asked_alike import by_command

TOY = Path(__file__).parent / "toy"
WITH_TOY = (*EXPERIMENTS, "toy_experiment")


@pytest.fixture
def toys(make_settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A service that has the toy beside our kinds; its probes find the toy's probe."""
    monkeypatch.syspath_prepend(TOY)
    path = os.pathsep.join([str(TOY), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    with open_service(make_settings(), experiments=WITH_TOY) as service:
        with TestClient(create_app(service), base_url="http://127.0.0.1:8321") as client:
            yield client


@pytest.fixture
def job_of(toys: TestClient, eventually: Any) -> Any:
    def ended(size: int) -> dict[str, Any]:
        accepted = toys.post("/v1/probes/toy", json={"size": size})
        assert accepted.status_code == 202, accepted.text
        path = accepted.headers["location"]
        eventually(lambda: toys.get(path).json()["state"] in ("succeeded", "failed"))
        body: dict[str, Any] = toys.get(path).json()
        return body

    return ended


def test_the_command_line_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOY)
    with_toy = CliRunner().invoke(build_app(WITH_TOY), ["probe", "toy", "--help"])
    assert with_toy.exit_code == 0 and "Count to a size." in with_toy.output
    assert CliRunner().invoke(build_app(), ["probe", "toy", "--help"]).exit_code == 2


def test_from_a_request_to_every_form_of_its_report(toys: TestClient, job_of: Any) -> None:
    job = job_of(7)
    assert (job["kind"], job["state"]) == ("toy", "succeeded"), job
    report = job["links"]["report"].rsplit("/", 1)[1]
    assert toys.get(job["links"]["report"]).json()["sizes"] == list(range(7))
    alone = toys.get(f"/reports/{report}")
    assert alone.text == "<p>A toy of 7</p>"
    assert alone.headers["content-security-policy"] == PLAIN_POLICY
    page = toys.get(f"/probes/{report}").text
    assert "<h1>The toy counted to 7</h1>" in page and 'href="/probes?kind=toy"' in page
    assert "counted to 2" in toys.get(f"/probes/{report}?most=2").text
    assert toys.get(f"/probes/{report}?least=2").status_code == 422
    assert "\n6" in toys.get(f"/probes/{report}/plots/sizes.csv").text
    listed = toys.get("/probes?kind=toy").text
    assert "A toy of size 7." in listed and f'href="/probes/{report}"' in listed
    assert f'href="/probes/{report}"' in toys.get("/jobs").text
    assert "driftscope_toy_size 7" in toys.get("/metrics").text


def test_a_toy_that_is_killed_says_how_to_ask_for_less(job_of: Any) -> None:
    error = job_of(13)["error"]
    assert "SIGKILL" in error["message"] and error["remedy"].endswith("ask for a smaller toy.")


def test_it_has_a_form_and_its_command_line_asks_for_the_same(toys: TestClient) -> None:
    page = toys.get("/probes/new/toy").text
    assert 'type="number" id="size" name="size"' in page and "how far to count" in page
    assert 'href="/probes/new/toy"' in toys.get("/probes/new").text
    checked = toys.post("/probes/new/toy/check", data={"size": "4"}).text
    assert "driftscope probe toy --size 4" in checked and "/v1/probes/toy" in checked
    refused = toys.post("/probes/new/toy", data={"size": "101"})
    assert refused.status_code == 422 and 'id="size-error"' in refused.text
    started = toys.post("/probes/new/toy", data={"size": "4"}, follow_redirects=False)
    assert started.status_code == 303
    kind = load_kinds(WITH_TOY)["toy"]
    same = same_request(kind, kind.request(size=4), "http://x/", key=False)  # type: ignore[misc]
    assert by_command(kind, same) == kind.request(size=4)  # type: ignore[misc]


def test_its_request_is_checked_and_can_be_scheduled(toys: TestClient) -> None:
    assert toys.post("/v1/probes/toy", json={"size": -1}).status_code == 422
    assert "DRIFTSCOPE_MAX_TOYS" in toys.post("/v1/probes/toy", json={"size": 101}).text
    body = {"cron": "0 3 * * *", "job": {"kind": "toy", "request": {"size": 4}}}
    schedule = toys.put("/v1/schedules/toys", json=body)
    assert (schedule.status_code, schedule.json()["request"]) == (201, {"size": 4})
    document = toys.get("/openapi.json").json()
    operation = document["paths"]["/v1/probes/toy"]["post"]
    assert operation["operationId"] == "start_toy"
    assert operation["description"] == "Queue a toy. Follow the job at `Location`."
    assert document["components"]["schemas"]["JobBody"]["properties"]["kind"]["enum"][-1] == "toy"
