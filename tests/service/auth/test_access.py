"""Keys over the whole service: who passes, who does not, and that no secret is ever told."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from driftscope_service.auth import access
from driftscope_service.auth.access import NoKeyError
from driftscope_service.auth.key import KeyText, Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.service import open_service

from .keys_of import add_key, bearer

#: A request per scope, and what it is answered with once it is let in.
REQUESTS = [
    ("GET", "/v1/jobs", Scope.READ, 200),
    ("GET", "/metrics", Scope.READ, 200),
    ("PUT", "/v1/runs/a", Scope.INGEST, 201),
    ("POST", "/v1/jobs/none/cancel", Scope.PROBE, 404),
    ("DELETE", "/v1/jobs", Scope.ADMIN, 405),
]


@pytest.fixture
def guarded(run_service: Any) -> Iterable[Any]:
    with run_service(require_keys=True) as running:
        yield running


@pytest.mark.parametrize(("method", "path", "needed", "status"), REQUESTS)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_passes_with_its_scope_only(
    guarded: Any, method: str, path: str, needed: Scope, status: int, scope: Scope
) -> None:
    key = add_key(guarded.service.database, scope)
    body: dict[str, Any] = {"json": {}} if method == "PUT" else {}
    answer = guarded.client.request(method, path, headers=bearer(key), **body)
    if scope in (needed, Scope.ADMIN):
        assert answer.status_code == status, answer.text
    else:
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/scope-missing")
        assert f'scope="{needed}"' in answer.headers["www-authenticate"]


def test_several_scopes(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.INGEST, Scope.READ)
    assert guarded.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
    assert guarded.client.put("/v1/runs/a", headers=bearer(key), json={}).status_code == 201


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/problems/unauthenticated"])
def test_open_paths(guarded: Any, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/metrics", "/openapi.json", "/nowhere"])
def test_without_a_key(guarded: Any, path: str) -> None:
    answer = guarded.client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="driftscope"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer dsk_",
        "Basic dXNlcjpwYXNz",
        "{token}",
        "Token {token}",
        "Bearer {token}0",
        "Bearer {id_only}",
        "Bearer {wrong_secret}",
        "Bearer {unknown_id}",
        "Bearer " + "x" * 5000,
    ],
)
def test_wrong_keys(guarded: Any, header: str) -> None:
    key = add_key(guarded.service.database, Scope.ADMIN)
    value = header.format(
        token=key.token,
        id_only=f"dsk_{key.id}_",
        wrong_secret=KeyText(key.id, new_key().secret).token,
        unknown_id=KeyText(new_key().id, key.secret).token,
    )
    answer = guarded.client.get("/v1/jobs", headers={"authorization": value})
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_scheme_is_case_insensitive(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    header = {"authorization": f"bearer {key.token}"}
    assert guarded.client.get("/v1/jobs", headers=header).status_code == 200


def test_a_key_in_the_address_is_no_key(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    answer = guarded.client.get(f"/v1/jobs?api_key={key.token}")
    assert answer.status_code == 400 and answer.json()["type"].endswith("key-in-address")


def test_an_expired_key(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ, expires_in=timedelta(seconds=-1))
    answer = guarded.client.get("/v1/jobs", headers=bearer(key))
    assert answer.status_code == 401 and "expired" in answer.json()["detail"]
    good = add_key(guarded.service.database, Scope.READ, expires_in=timedelta(days=1))
    assert guarded.client.get("/v1/jobs", headers=bearer(good)).status_code == 200


def test_a_revoked_key_ends_at_once(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    assert guarded.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
    with guarded.service.database.write() as connection:
        KeyRepository(connection).revoke(key.id)
    answer = guarded.client.get("/v1/jobs", headers=bearer(key))
    assert answer.status_code == 401 and "revoked" in answer.json()["detail"]


def test_a_refused_body_is_not_read(guarded: Any) -> None:
    too_much = b"x" * (guarded.service.settings.max_body_bytes + 1)
    answer = guarded.client.put("/v1/runs/a", content=too_much)
    assert answer.status_code == 401  # not 413: the key comes first


def test_use_is_noted_by_the_hour(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    database = guarded.service.database
    key = add_key(database, Scope.READ)

    def last_used() -> datetime | None:
        guarded.client.get("/v1/jobs", headers=bearer(key))
        with database.read() as connection:
            found = KeyRepository(connection).get(key.id)
        assert found is not None
        return found.last_used_at

    first = last_used()
    assert first is not None and datetime.now(UTC) - first < timedelta(minutes=1)
    assert last_used() == first
    monkeypatch.setattr(access, "LAST_USED_EVERY", timedelta(0))
    second = last_used()
    assert second is not None and second > first


def test_no_secret_in_log_answer_or_database(
    guarded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = add_key(guarded.service.database, Scope.READ)
    answers = [
        guarded.client.get("/v1/jobs", headers=bearer(key)),
        guarded.client.put("/v1/runs/a", headers=bearer(key), json={}),
        guarded.client.get("/v1/jobs", headers=bearer(KeyText(new_key().id, key.secret))),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 401]
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert key.secret not in told
    kept = b"".join(path.read_bytes() for path in guarded.data_dir.rglob("*") if path.is_file())
    assert key.secret_sha256.encode() in kept and key.secret.encode() not in kept


def test_loopback_needs_no_key_unless_set(running: Any) -> None:
    assert running.client.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_loopback_without_a_key_it_does_not_start(make_settings: Any, host: str) -> None:
    with (
        pytest.raises(NoKeyError, match="no active API key") as error,
        open_service(make_settings(host=host)),
    ):
        pass
    assert "driftscope keys create" in error.value.remedy


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_key_that_has_ended_does_not_count(make_settings: Any, state: str) -> None:
    with open_service(make_settings()) as service:
        key = add_key(
            service.database,
            Scope.ADMIN,
            expires_in=timedelta(seconds=-1) if state == "expired" else None,
        )
        with service.database.write() as connection:
            if state == "revoked":
                KeyRepository(connection).revoke(key.id)
    with pytest.raises(NoKeyError), open_service(make_settings(host="0.0.0.0")):
        pass


def test_beyond_loopback_keys_are_required(make_settings: Any, run_service: Any) -> None:
    with open_service(make_settings()) as service:
        key = add_key(service.database, Scope.READ)
    with run_service(host="0.0.0.0") as running:
        assert running.client.get("/v1/jobs").status_code == 401
        assert running.client.get("/v1/jobs", headers=bearer(key)).status_code == 200
        assert running.client.get("/healthz").status_code == 200
