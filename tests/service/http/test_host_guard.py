"""Only callers that mean this service: Host and Origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from driftscope_service.http.middleware import HostGuard, RequestId

OURS = "127.0.0.1:8321"


@pytest.mark.parametrize("host", [OURS, "localhost", "LOCALHOST:8321", "[::1]:8321", "127.0.0.2"])
def test_loopback_names_are_served(running: Any, host: str) -> None:
    assert running.client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8321", "", "[::1"]
)
def test_other_names_are_refused(running: Any, host: str) -> None:
    """DNS rebinding: a page's own name that points at 127.0.0.1."""
    answer = running.client.get("/v1/jobs", headers={"host": host})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/wrong-host"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9", "http://["]
)
def test_a_page_of_another_origin_changes_nothing(running: Any, origin: str) -> None:
    job_id = running.start("sleep")
    answer = running.client.post(f"/v1/jobs/{job_id}/cancel", headers={"origin": origin})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/other-origin")
    assert not running.job(job_id)["cancel_requested"]


def test_our_own_page_may_change_things(running: Any) -> None:
    job_id = running.start("sleep")
    own = {"origin": f"http://{OURS}", "host": OURS}
    assert running.client.post(f"/v1/jobs/{job_id}/cancel", headers=own).status_code == 202


REACHABLE = [  # Host header, whether it is served on 0.0.0.0 with allowed_hosts drift.example
    ("10.0.0.7:8321", True),
    ("[2001:db8::1]:8321", True),
    ("localhost", True),
    ("drift.example", True),
    ("Drift.Example:8321", True),
    ("evil.example", False),
    ("drift.example.evil.example", False),
    ("10.0.0.7.evil.example", False),
    ("", False),
]


@pytest.mark.parametrize(("host", "served"), REACHABLE)
def test_beyond_loopback_addresses_and_allowed_names(
    app_with: Callable[..., TestClient], host: str, served: bool
) -> None:
    client = app_with(loopback_only=False, allowed_hosts=["drift.example"])
    assert client.get("/", headers={"host": host}).status_code == (200 if served else 400)


def test_on_loopback_another_address_is_refused(app_with: Callable[..., TestClient]) -> None:
    client = app_with(allowed_hosts=["drift.example"])
    assert client.get("/", headers={"host": "10.0.0.7"}).status_code == 400
    assert client.get("/", headers={"host": "drift.example"}).status_code == 200


@pytest.fixture
def app_with() -> Callable[..., TestClient]:
    """The guard around an application that answers 200."""

    def make(**options: Any) -> TestClient:
        guarded = HostGuard(PlainTextResponse("here"), **options)
        return TestClient(RequestId(guarded))

    return make
