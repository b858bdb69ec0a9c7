"""An address that does not exist and a bug: a page for a browser, a problem for a program."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_service.pages.response import CONTENT_SECURITY_POLICY

BROWSER = {"accept": "text/html,*/*;q=0.8"}


def test_an_address_that_does_not_exist(running: Any) -> None:
    answer = running.client.get("/run/a<b>", headers=BROWSER)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "There is nothing at /run/a&lt;b&gt;." in answer.text
    assert answer.headers["x-request-id"] in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing"])
def test_a_program_gets_a_problem(running: Any, path: str) -> None:
    for headers in ({}, BROWSER if path.startswith("/v1/") else {"accept": "*/*"}):
        answer = running.client.get(path, headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_other_errors_of_the_protocol_stay_problems(running: Any) -> None:
    answer = running.client.post("/runs", headers=BROWSER)
    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")


def test_a_bug_in_a_page(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a secret of the code")

    monkeypatch.setattr("driftscope_service.runs.pages.runs_page.check_metric", fail)
    monkeypatch.setattr(running.client._transport, "raise_server_exceptions", False)
    answer = running.client.get("/runs", headers=BROWSER)
    assert answer.status_code == 500
    assert "<h1>" in answer.text and "The service failed at this page" in answer.text
    assert "secret" not in answer.text
    problem = running.client.get("/runs")
    assert (problem.status_code, problem.json()["type"]) == (500, "/problems/internal-error")
