"""NUL characters, lone surrogates, keys in addresses: refused everywhere alike, never a 500."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from sqlalchemy import URL
from starlette.testclient import TestClient

from driftscope_service.http.errors import HttpProblem
from driftscope_service.http.text_guard import BodyGuard

KEY = "dsk_0123456789ab_" + 64 * "0"
UNFIT = ("a\x00b", "a\ud800b", "\udfff")


@pytest.fixture(params=["sqlite", "postgresql"])
def client(request: pytest.FixtureRequest, run_service: Any) -> Iterator[TestClient]:
    given: dict[str, Any] = {}
    if request.param == "postgresql":
        url: URL = request.getfixturevalue("postgresql_url")
        given["database_url"] = url.render_as_string(hide_password=False)
    with run_service(**given) as running:
        yield running.client


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Every method and path, of pages as well."""
    return sorted(
        {
            (method, route.path)
            for route in client.app.routes  # type: ignore[attr-defined]
            for method in route.methods
        }
    )


def test_no_route_fails_for_a_nul(client: TestClient) -> None:
    """In every part of a path, in the query and in a header, on each route and method."""
    asked = 0
    for method, template in routes(client):
        plain = template.replace("{path:path}", "{path}")
        parts = plain.split("/")
        unfit = ["/".join("x%00" if i == place else _filled(part) for i, part in enumerate(parts))
                 for place, own in enumerate(parts) if own.startswith("{")]  # fmt: skip
        whole = "/".join(map(_filled, parts))
        for path in [*unfit, f"{whole}?cursor=%00", f"{whole}?q%00=1", f"{whole}?q=%00"]:
            answer = client.request(method, path, follow_redirects=False)
            assert answer.status_code in (400, 422), (method, path, answer.text)
            asked += 1
    assert asked > 200


def _filled(part: str) -> str:
    return "1" if part.startswith("{") else part


def json_bodies(text: str) -> list[tuple[str, str, Any]]:
    """Every route that takes text in JSON, with the text in each of its places."""
    step = {"rollout_logprobs": [[-0.5]], "trainer_logprobs": [[-0.5]]}
    paired = {"model": "tiny-random-llama", "prompts": ["a"], "engine_dtypes": ["bf16"]}
    push = "/v1/runs/r/steps/1/logprobs"
    return [
        *(("PUT", "/v1/runs/r", {name: text}) for name in
          ("model", "framework", "engine", "rollout_dtype", "trainer_dtype", "note")),
        ("PUT", "/v1/runs/r", {"labels": {"a": text}}),
        ("PUT", "/v1/runs/r", {"labels": {text: "a"}}),
        ("PUT", "/v1/runs/r", {"tags": [text]}),
        ("POST", "/v1/runs/r/attempts", {"id": text}),
        ("POST", "/v1/probes/paired", {**paired, "prompts": [text]}),
        ("POST", "/v1/probes/paired", {**paired, "model": text}),
        ("POST", "/v1/probes/kernels", {"targets": [text]}),
        ("POST", "/v1/schedules", {"name": text}),
        ("PUT", "/v1/schedules/a", {"kind": text, "request": {"a": text}}),
        ("POST", "/v1/reports", {"kind": "paired", "origin": {"host": text, "command": text}}),
        ("POST", "/v1/reports", {"kind": text}),
        ("POST", "/v1/nightly", {"kind": text, "notes": [text]}),
        ("POST", "/v1/lint", {"settings": text}),
        ("POST", push, {**step, "metadata": {"model": text}}),
        ("POST", push, {**step, "metadata": {text: "a"}}),
        ("POST", push, {**step, text: [1]}),
    ]  # fmt: skip


@pytest.mark.parametrize("text", UNFIT)
def test_no_body_keeps_such_text(client: TestClient, text: str) -> None:
    client.put("/v1/runs/r", json={})
    for method, path, body in json_bodies(text):
        # As httpx would not: with the escapes that JSON has for what is no character.
        content = json.dumps(body, ensure_ascii=True)
        headers = {"content-type": "application/json"}
        answer = client.request(method, path, content=content, headers=headers)
        assert answer.status_code in (400, 404, 405, 422), (path, body, answer.text)
        assert path == "/v1/schedules" or answer.status_code in (400, 422), (path, body)


def test_nor_a_step_or_a_form(client: TestClient) -> None:
    tensors = {"a": np.zeros(1, np.float32)}
    headers = {"content-type": "application/vnd.safetensors"}
    body = save(tensors, {"model": "a\x00b"})
    answer = client.post("/v1/runs/r/steps/1/logprobs", content=body, headers=headers)
    assert answer.status_code == 400
    client.put("/v1/runs/r", json={})
    form = {"content-type": "application/x-www-form-urlencoded", "origin": "http://127.0.0.1:8321"}
    for path in ("/login", "/runs/r/marks", "/runs/r/pin", "/probes/new/paired"):
        answer = client.post(path, content="tags=a%00&key=%00&note=%00&next=%00", headers=form)
        assert answer.status_code in (400, 422), (path, answer.text)


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
JSON = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(JSON, st.booleans())
@example("\\u0000 as it is written", True)
@example({"\\ud800": ["\\\\u0000"]}, True)
@example({"\ud83d\ude00": 1}, True)
def test_exactly_what_no_database_keeps_is_refused(document: Any, ascii_: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_)
    body = text.encode("utf-8", "surrogatepass")
    fit = True
    try:
        read = json.dumps(json.loads(text), ensure_ascii=False)
        read.encode("utf-8")
        fit = "\\u0000" not in re.sub(r"\\\\", "", read)
    except UnicodeEncodeError:
        fit = False
    guard = BodyGuard(_echo, re.compile("x"))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "headers": [(b"content-type", b"application/json")]}
    try:
        asyncio.run(guard(scope, receive, send))
        refused = False
    except HttpProblem as problem:
        assert problem.status_code == 422
        refused = True
    if ascii_ or fit:
        assert refused is not fit


@pytest.mark.parametrize(
    "path",
    [f"/v1/jobs?cursor={KEY}", f"/runs?{KEY}", f"/v1/jobs/{KEY}", f"/?a={KEY.replace('d', '%64')}"],
)
def test_a_key_in_an_address(running: Any, path: str) -> None:
    answer = running.client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/key-in-address")
    assert KEY not in answer.text and "Authorization" in running.client.get(
        "/problems/key-in-address").text  # fmt: skip


def test_millions_of_lists_are_refused_at_once(running: Any) -> None:
    body = b"[" + b"[]," * 5_000_000 + b"[]]"
    headers = {"content-type": "application/json"}
    for path in ("/v1/nightly", "/v1/reports"):
        answer = running.client.post(path, content=body, headers=headers)
        assert answer.status_code == 422
        assert "5,000,002 lists" in answer.json()["detail"]
    answer = running.client.post("/v1/runs/r/steps/1/logprobs", content=body, headers=headers)
    assert answer.status_code == 400 and "5,000,002 lists" in answer.json()["detail"]
