"""Requests are counted by route, method and class of the status; nothing else makes a series."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from starlette.testclient import TestClient

from driftscope_service.app import create_app
from driftscope_service.http.middleware import DURATION_EDGES_S, OTHER, RequestCounts, RequestMeter

RUN, STEPS = "/v1/runs/{run}", "/v1/runs/{run}/steps"
STATIC = "/static/{path:path}"


@pytest.fixture
def counts() -> RequestCounts:
    return RequestCounts()


@pytest.fixture
def client(running: Any, counts: RequestCounts) -> Iterator[TestClient]:
    app = RequestMeter(create_app(running.service), counts)
    # The fixture has started the service already.
    yield TestClient(app, base_url="http://127.0.0.1:8321", raise_server_exceptions=False)


def answers(counts: RequestCounts) -> dict[tuple[str, str, str], float]:
    text = list(counts.families())[0].text(openmetrics=False)
    return {
        (found.labels["route"], found.labels["method"], found.labels["status_class"]): found.value
        for family in parse(text)
        for found in family.samples
    }


def durations(counts: RequestCounts, suffix: str) -> dict[str, float]:
    text = list(counts.families())[1].text(openmetrics=False)
    return {
        found.labels["route"]: found.value
        for family in parse(text)
        for found in family.samples
        if found.name.endswith(suffix)
    }


def test_a_route_is_a_template(client: TestClient, counts: RequestCounts) -> None:
    for name in ("a", "b"):
        assert client.put(f"/v1/runs/{name}", json={}).status_code == 201
    assert client.put("/v1/runs/a", json={"made": "up"}).status_code == 422
    assert client.get("/v1/runs/a/steps").status_code == 200
    assert client.get("/v1/runs/none/steps").status_code == 404
    assert client.post("/v1/runs/a").status_code == 405
    assert client.get("/runs/a").status_code == 200
    style = client.get("/static/pages.css")
    known = {"if-none-match": style.headers["etag"]}
    assert client.get("/static/pages.css", headers=known).status_code == 304
    assert answers(counts) == {
        (RUN, "PUT", "2xx"): 2,
        (RUN, "PUT", "4xx"): 1,
        (STEPS, "GET", "2xx"): 1,
        (STEPS, "GET", "4xx"): 1,
        (RUN, "POST", "4xx"): 1,
        ("/runs/{run}", "GET", "2xx"): 1,
        (STATIC, "GET", "2xx"): 1,
        (STATIC, "GET", "3xx"): 1,
    }
    assert durations(counts, "_count") == {
        RUN: 4,
        STEPS: 2,
        "/runs/{run}": 1,
        STATIC: 2,
    }
    assert all(seconds > 0 for seconds in durations(counts, "_sum").values())


def test_what_is_made_up_is_one_series(
    running: Any, client: TestClient, counts: RequestCounts
) -> None:
    for path in ("/nothing", "/v2/runs", "/runs/a/b/c/d", "/%00", "/v1/runs/" + "x" * 999):
        client.get(path)
    client.get("/v1/runs", headers={"host": "elsewhere.example"})
    client.request("BREW", "/nothing")
    found = answers(counts)
    made_up = [labels for labels in found if labels[0] == OTHER]
    assert sorted(made_up) == [(OTHER, "GET", "4xx"), (OTHER, OTHER, "4xx")]
    templates = {getattr(route, "path", "") for route in create_app(running.service).routes}
    assert {route for route, _, _ in found} <= {*templates, OTHER}


def test_an_error_without_an_answer_is_the_services(counts: RequestCounts) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(
            RequestMeter(app, counts)({"type": "http", "method": "GET"}, None, None)  # type: ignore[arg-type]
        )
    assert answers(counts) == {(OTHER, "GET", "5xx"): 1}


def test_other_connections_are_none_of_its_business(counts: RequestCounts) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(RequestMeter(app, counts)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert (seen, answers(counts), durations(counts, "_count")) == (["lifespan"], {}, {})


@pytest.mark.parametrize(("took_s", "index"), [(0.0, 0), (0.01, 0), (0.011, 1), (21.0, -1)])
def test_a_duration_stands_in_its_bucket(counts: RequestCounts, took_s: float, index: int) -> None:
    counts.end("/", "GET", 200, took_s)
    text = list(counts.families())[1].text(openmetrics=False)
    buckets = [line[-3:] for line in text.splitlines() if "_bucket" in line]
    first = index % len(buckets)
    assert buckets == ["0.0"] * first + ["1.0"] * (len(buckets) - first)
    assert '_bucket{route="/",le="+Inf"} 1.0\n' in text
    assert text.count("_bucket{") == len(DURATION_EDGES_S) + 1


def test_the_page_has_what_was_asked_of_the_service(running: Any) -> None:
    running.client.get("/v1/runs")
    running.client.get("/v1/runs")
    page = running.client.get("/metrics").text
    line = 'driftscope_http_requests_total{method="GET",route="/v1/runs",status_class="2xx"} 2.0\n'
    assert line in page
