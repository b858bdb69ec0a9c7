"""A key that is bound to a prefix, over every route: it changes and sees its own runs alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.auth.key import Scope, required_scope
from driftscope_service.auth.reach import Reach

from .keys_of import add_key, bearer

PREFIX, OWN, OTHER = "team-a-", "team-a-run", "team-b-secret"
#: In place of parameters that are no name of a run.
FILLED = {
    "step": "1",
    "of_attempt": "1",
    "format_": "json",
    "plot": "delta",
    "kind_name": "paired",
    "slug": "not-found",
}


@pytest.fixture
def bound(run_service: Any) -> Iterator[Any]:
    with run_service(require_keys=True) as running:
        everything = bearer(add_key(running.service.database, Scope.ADMIN))
        for run in (OWN, OTHER):
            said = {"model": "m", "labels": {"of": run}}
            running.client.put(f"/v1/runs/{run}", json=said, headers=everything)
            marks = {"tags": [f"tag-{run}"], "note": f"note of {run}", "pinned": True}
            marked = running.client.put(f"/v1/runs/{run}", json=marks, headers=everything)
            assert marked.status_code == 200, marked.text
        key = add_key(running.service.database, Scope.ADMIN, run_prefix=PREFIX)
        running.client.headers.update(bearer(key))
        running.client.follow_redirects = False
        yield running


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route, pages and what the OpenAPI document leaves out as well."""
    found = [
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]
    return [*found, ("GET", "/openapi.json")]


def filled(path: str, run: str) -> str:
    for name, text in FILLED.items():
        path = path.replace(f"{{{name}}}", text)
    return re.sub(r"\{[^}]*\}", "x", path.replace("{run}", run))


def is_out_of_reach(answer: Any) -> bool:
    if answer.headers["content-type"] != "application/problem+json":
        return False
    return bool(answer.json()["type"] == "/problems/run-out-of-reach")


def leaks(app: FastAPI, client: Any) -> list[str]:
    """Routes that let a bound key reach a run that is not its own, or tell of one."""
    found = []
    for method, path in routes(app):
        if required_scope(method, path) is None:
            continue
        answer = client.request(method, filled(path, OTHER), follow_redirects=False)
        refused = is_out_of_reach(answer)
        if ("{run}" in path or OTHER in answer.text) and not refused:
            found.append(f"{method} {path}: {answer.status_code}")
    return found


def test_no_route_reaches_a_run_of_others(bound: Any) -> None:
    app = bound.client.app
    assert leaks(app, bound.client) == []
    of_runs = [path for _, path in routes(app) if "{run}" in path]
    assert len(of_runs) > 30  # the check has something to check


def test_a_new_route_that_forgets_is_caught(bound: Any) -> None:
    """Planted: one under another path, and a list that does not ask which runs are in reach."""
    app = bound.client.app

    def list_all() -> list[str]:
        return [OTHER]

    def series(run: str) -> str:
        return run

    app.add_api_route("/v1/lint", list_all)
    app.add_api_route("/v1/series/{run}", series)

    found = leaks(app, bound.client)
    assert "GET /v1/lint: 200" in found
    # What is not listed is closed, whatever it does.
    assert not any("series" in one for one in found)


def test_every_operation_of_the_document_that_takes_a_run_is_refused(bound: Any) -> None:
    document = bound.client.get("/openapi.json").json()
    named = [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if any(one["name"] == "run" for one in operation.get("parameters", ()))
    ]
    assert len(named) >= 10
    for method, path in named:
        answer = bound.client.request(method, filled(path, OTHER))
        assert answer.status_code == 403 and is_out_of_reach(answer), (method, path)
        assert is_out_of_reach(bound.client.request(method, filled(path, "never-there")))


def test_its_own_runs_are_all_its_own(bound: Any, pushing_to: Any) -> None:
    client, pushing = bound.client, pushing_to(bound)
    assert pushing.push(pushing.body(), run=OWN, step=2).status_code == 201
    assert client.put(f"/v1/runs/{PREFIX}new", json={"model": "m"}).status_code == 201
    assert client.get(f"/v1/runs/{OWN}").status_code == 200
    assert client.get(f"/runs/{OWN}", headers={"accept": "text/html"}).status_code == 200
    assert client.post(f"/runs/{OWN}/pin", data={"pinned": "yes"}).status_code == 303
    names = [run["run"] for run in client.get("/v1/runs").json()["runs"]]
    assert sorted(names) == [f"{PREFIX}new", OWN]
    assert f'run="{OWN}"' in client.get("/metrics").text
    compared = client.get(f"/compare?a={OWN}&b={OWN}")
    assert compared.status_code == 200
    other = client.get(f"/compare?a={OWN}&b={OTHER}")
    assert other.status_code == 422 and "there is no run" in other.text
    plot = client.get(f"/compare/plots/histogram.json?a={OWN}&b={OTHER}")
    assert plot.status_code == 422
    assert client.delete(f"/v1/runs/{OWN}/steps/2").status_code == 200
    assert client.delete(f"/v1/runs/{OWN}").status_code == 200


CLOSED = (
    ("GET", "/v1/jobs"),
    ("GET", "/v1/reports"),
    ("POST", "/v1/probes/diagnose"),
    ("PUT", "/v1/schedules/s"),
    ("GET", "/v1/audit"),
    ("GET", "/probes/new/diagnose?run=team-b-secret&step=1"),
    ("DELETE", "/v1/runs/"),
    ("GET", "//v1/runs/team-b-secret"),
)


def test_what_is_not_of_runs_alone_is_closed(bound: Any) -> None:
    for method, path in CLOSED:
        answer = bound.client.request(method, path)
        assert is_out_of_reach(answer), (method, path, answer.text)


def test_a_browser_is_told_on_a_page(bound: Any) -> None:
    answer = bound.client.get(f"/runs/{OTHER}", headers={"accept": "text/html"})
    assert answer.status_code == 403 and "bound to runs whose names begin with" in answer.text


@given(
    prefix=st.text("aAb.-", min_size=1, max_size=4), run=st.text("aAb.-", min_size=1, max_size=8)
)
def test_a_path_is_open_exactly_to_names_that_begin_so(prefix: str, run: str) -> None:
    reach = Reach(prefix)
    for path in (f"/v1/runs/{run}", f"/runs/{run}/steps/3", f"/v1/runs/{run}/steps/1/logprobs"):
        assert (reach.refusal(path) is None) is run.startswith(prefix)
        assert Reach().refusal(path) is None
