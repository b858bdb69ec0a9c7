"""Limits over the service: 429 with Retry-After, per key, and nothing for health routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from driftscope_service.auth import guard
from driftscope_service.auth.guard import KeyGuard, WrongKeys
from driftscope_service.auth.key import KeyText, Scope, new_key

from .keys_of import add_key, bearer


@pytest.fixture
def guarded(run_service: Any) -> Iterator[Any]:
    with run_service(require_keys=True, requests_per_minute_per_key=3) as running:
        yield running


def test_more_requests_than_a_key_may_send(guarded: Any) -> None:
    headers = bearer(add_key(guarded.service.database, Scope.READ))
    answers = [guarded.client.get("/v1/runs", headers=headers) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"] for answer in answers[:3]] == [
        '"minute";r=2;t=0',
        '"minute";r=1;t=0',
        f'"minute";r=0;t={answers[2].headers["ratelimit"].rsplit("=", 1)[1]}',
    ]
    assert answers[0].headers["ratelimit-policy"] == '"minute";q=3;w=60'
    refused = answers[3]
    assert refused.json()["type"] == "/problems/rate-limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    other = bearer(add_key(guarded.service.database, Scope.READ))
    assert guarded.client.get("/v1/runs", headers=other).status_code == 200


def test_a_key_with_a_number_of_its_own(guarded: Any) -> None:
    headers = bearer(add_key(guarded.service.database, Scope.READ, requests_per_minute=5))
    answers = [guarded.client.get("/v1/runs", headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]


def test_what_is_refused_for_its_scope_takes_nothing(guarded: Any) -> None:
    headers = bearer(add_key(guarded.service.database, Scope.READ))
    for _ in range(5):
        assert guarded.client.put("/v1/runs/a", headers=headers, json={}).status_code == 403
    assert guarded.client.get("/v1/runs", headers=headers).status_code == 200


def test_health_routes_are_exempt(guarded: Any) -> None:
    for _ in range(10):
        assert guarded.client.get("/healthz").status_code == 200
        assert guarded.client.get("/readyz").status_code == 200


def test_a_browser_gets_a_page(guarded: Any) -> None:
    headers = bearer(add_key(guarded.service.database, Scope.READ, requests_per_minute=1))
    headers["accept"] = "text/html"
    assert guarded.client.get("/runs", headers=headers).status_code == 200
    refused = guarded.client.get("/runs", headers=headers)
    assert refused.status_code == 429 and refused.headers["retry-after"]
    assert "<h1" in refused.text and "requests in a minute" in refused.text


def test_a_stream_counts_as_one_request_for_as_long_as_it_lasts(guarded: Any) -> None:
    """Through the guard, before an application that streams until it is told to end."""
    key = add_key(guarded.service.database, Scope.READ, requests_per_minute=50, max_concurrent=2)

    async def ask() -> list[int]:
        end = asyncio.Event()

        async def stream(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await end.wait()
            await send({"type": "http.response.body", "body": b""})

        app = KeyGuard(
            stream,
            database=guarded.service.database,
            settings=guarded.service.settings,
            wrong_keys=WrongKeys(),
        )

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": {"request_id": "req_1"}}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:

            async def get() -> httpx.Response:
                return await client.get("/v1/jobs/j/events", headers=bearer(key))

            streams = [asyncio.create_task(get()) for _ in range(2)]
            while not all_held(app, key):
                await asyncio.sleep(0.01)
            refused = await get()
            assert refused.headers["retry-after"] == "1"
            assert "2 requests under way at once" in refused.json()["detail"]
            end.set()
            ended = [await stream for stream in streams]
            again = await get()
        return [*(one.status_code for one in ended), refused.status_code, again.status_code]

    assert asyncio.run(ask()) == [200, 200, 429, 200]


def all_held(app: KeyGuard, key: KeyText) -> bool:
    return app._limits._at_once._running[f"key {key.id}"] == 2


def test_without_keys_addresses_are_counted_where_that_is_set(run_service: Any) -> None:
    with run_service(requests_per_minute_per_address=2) as running:
        statuses = [running.client.get("/v1/runs").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        elsewhere = TestClient(running.client.app, client=("192.0.2.7", 1))
        elsewhere.headers["host"] = "127.0.0.1"
        assert elsewhere.get("/v1/runs").status_code == 200


def test_without_keys_nothing_is_counted_by_default(running: Any) -> None:
    answer = running.client.get("/v1/runs")
    assert "ratelimit" not in answer.headers


def test_wrong_keys_are_slowed_down_and_right_ones_are_not(run_service: Any) -> None:
    most = guard.WRONG_KEYS_PER_MINUTE
    with run_service(require_keys=True) as running:
        right = add_key(running.service.database, Scope.READ)
        wrong = [KeyText(right.id, new_key().secret) for _ in range(most)]
        statuses = [
            running.client.get("/v1/runs", headers=bearer(key)).status_code for key in wrong
        ]
        assert statuses == [401] * most
        slowed = running.client.get("/v1/runs", headers=bearer(new_key()))
        assert (slowed.status_code, slowed.json()["type"]) == (429, "/problems/too-many-wrong-keys")
        assert int(slowed.headers["retry-after"]) >= 1
        assert "www-authenticate" not in slowed.headers
        # Of the same address, as behind one router.
        assert running.client.get("/v1/runs", headers=bearer(right)).status_code == 200
        form = running.client.post("/login", data={"key": new_key().token})
        assert form.status_code == 429 and form.headers["retry-after"]
        assert "Wait a few seconds" in form.text
        logged_in = running.client.post("/login", data={"key": right.token}, follow_redirects=False)
        assert logged_in.status_code == 303
        elsewhere = TestClient(running.client.app, client=("192.0.2.7", 1))
        elsewhere.headers["host"] = "127.0.0.1"
        assert elsewhere.get("/v1/runs", headers=bearer(new_key())).status_code == 401


def test_a_missing_or_ended_key_is_no_guess(run_service: Any) -> None:
    with run_service(require_keys=True) as running:
        for _ in range(2 * guard.WRONG_KEYS_PER_MINUTE):
            assert running.client.get("/v1/runs").status_code == 401


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, network: str) -> None:
    assert guard.client_network({"client": (address, 5)}) == network
    assert guard.client_network({"client": None}) == ""
