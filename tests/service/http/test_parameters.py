"""Unknown query parameters, over every route of the real app."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.routing import APIRoute

from driftscope_service.http.parameters import is_integer

HTML = {"accept": "text/html"}


def test_every_route_without_path_parameters_refuses_one(running: Any) -> None:
    routes = [
        route
        for route in running.client.app.routes
        if isinstance(route, APIRoute) and "GET" in route.methods and "{" not in route.path
    ]
    assert len(routes) > 15
    for route in routes:
        answer = running.client.get(route.path, params={"no_such": "1"}, follow_redirects=False)
        assert answer.status_code == 422, route.path
        assert "no_such" in answer.text, route.path


@pytest.mark.parametrize(
    "path, near",
    [("/v1/runs?limits=3", "did you mean limit?"), ("/v1/jobs?status=failed", "state")],
)
def test_the_answer_says_what_is_accepted(running: Any, path: str, near: str) -> None:
    problem = running.client.get(path).json()
    name = path.partition("?")[2].partition("=")[0]
    assert problem["errors"][0]["pointer"] == f"query/{name}"
    assert near in problem["remedy"]
    assert "cursor" in problem["remedy"]


def test_a_changing_request_is_not_carried_out(running: Any) -> None:
    answer = running.client.put("/v1/runs/a?modle=x", json={"model": "m"})
    assert answer.status_code == 422
    assert running.client.get("/v1/runs/a").status_code == 404


def test_a_page_says_it_as_a_page(running: Any) -> None:
    answer = running.client.get("/jobs?status=failed", headers=HTML)
    assert answer.status_code == 422
    assert "no parameter &#39;status&#39; here" in answer.text
    assert "Accepted are cursor, state" in answer.text


def test_what_a_route_reads_through_a_dependency_is_known(pushing: Any) -> None:
    pushed = pushing.push(pushing.body(), params={"shard": 0, "shards": 2})
    assert pushed.status_code == 201, pushed.text


@pytest.mark.parametrize("text", ["+1", "1.0", "%201", "1%20", "١", "01", "1_0", "1e0", "0x1", ""])
def test_numbers_are_written_in_digits_alone(running: Any, text: str) -> None:
    """On every route and in every place that takes an integer."""
    checked = 0
    for route in running.client.app.routes:
        dependant = getattr(route, "dependant", None)
        if dependant is None:
            continue
        numbers = [field.alias for field in dependant.path_params if is_integer(field)]
        path = re.sub(
            r"\{(\w+)\}",
            lambda part, numbers=numbers: text if part[1] in numbers else "x",  # type: ignore[misc]
            route.path,
        )
        method = min(route.methods)
        if numbers and text:
            answer = running.client.request(method, path)
            assert answer.status_code == 422, (path, answer.text)
            checked += 1
            continue
        for field in dependant.query_params:
            if is_integer(field) and not numbers:
                answer = running.client.request(method, f"{path}?{field.alias}={text}")
                assert answer.status_code == 422, (path, field.alias)
                checked += 1
    assert checked > 5
