"""Sessions of browsers: a random token in the cookie, ended with its key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient
from typer.testing import CliRunner

from driftscope_service.auth.key import Scope
from driftscope_service.auth.sessions import SessionRepository
from driftscope_service.cli.keys import app as keys_app
from driftscope_service.http import session
from driftscope_service.store.tables import api_keys, sessions

from .keys_of import add_key

BROWSER = {"accept": "text/html"}


@pytest.fixture
def guarded(run_service: Any) -> Iterator[Any]:
    with run_service(require_keys=True) as running:
        running.client.follow_redirects = False
        yield running


def log_in(client: Any, token: str) -> Any:
    answer = client.post("/login", data={"key": token})
    assert answer.status_code == 303, answer.text
    return answer


def rows(running: Any) -> int:
    with running.service.database.read() as connection:
        count: int = connection.execute(select(func.count()).select_from(sessions)).scalar_one()
    return count


def test_neither_cookie_nor_database_holds_the_key(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    cookie = log_in(guarded.client, key.token).headers["set-cookie"]
    assert key.secret not in cookie and key.id not in cookie
    token = guarded.client.cookies[session.COOKIE]
    kept = b"".join(path.read_bytes() for path in guarded.data_dir.rglob("*") if path.is_file())
    assert token.encode() not in kept and key.secret.encode() not in kept


def test_over_tls_the_cookie_is_secure_and_of_this_host_alone(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    client = TestClient(
        guarded.client.app, base_url="https://127.0.0.1:8321", follow_redirects=False
    )
    cookie = log_in(client, key.token).headers["set-cookie"]
    assert cookie.startswith("__Host-driftscope_session=") and "; secure" in cookie.lower()
    assert "path=/" in cookie.lower() and "domain" not in cookie.lower()
    assert client.get("/runs", headers=BROWSER).status_code == 200
    # Over TLS the name without the prefix, which another host could set, is not read.
    token = client.cookies["__Host-driftscope_session"]
    client.cookies.clear()
    client.cookies.set(session.COOKIE, token)
    assert client.get("/runs", headers=BROWSER).status_code == 303


def test_revoking_the_key_on_the_command_line_ends_it(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    log_in(guarded.client, key.token)
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 200
    done = CliRunner().invoke(keys_app, ["revoke", key.id, "--data-dir", str(guarded.data_dir)])
    assert done.exit_code == 0, done.output
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303
    assert rows(guarded) == 0


def test_an_expired_key_ends_it(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    log_in(guarded.client, key.token)
    past = datetime.now(UTC) - timedelta(seconds=1)
    with guarded.service.database.write() as connection:
        connection.execute(update(api_keys).where(api_keys.c.id == key.id).values(expires_at=past))
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303


def test_logout_deletes_the_row_so_that_a_copied_cookie_is_worth_nothing(guarded: Any) -> None:
    log_in(guarded.client, add_key(guarded.service.database, Scope.READ).token)
    copied = guarded.client.cookies[session.COOKIE]
    assert guarded.client.post("/logout").status_code == 303
    assert rows(guarded) == 0
    guarded.client.cookies.set(session.COOKIE, copied)
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303


def test_logging_in_again_ends_the_session_before(guarded: Any) -> None:
    for _ in range(2):
        log_in(guarded.client, add_key(guarded.service.database, Scope.READ).token)
    assert rows(guarded) == 1


def test_the_cookie_of_older_versions_is_refused_kindly(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    guarded.client.cookies.set(session.FORMER_COOKIE, key.token)
    refused = guarded.client.get("/runs", headers=BROWSER)
    assert refused.status_code == 303
    form = guarded.client.get(refused.headers["location"])
    assert "Log in once more" in form.text and key.token not in form.text
    cookies = log_in(guarded.client, key.token).headers.get_list("set-cookie")
    (removed,) = (one for one in cookies if one.startswith(f'{session.FORMER_COOKIE}=""; '))
    assert "Max-Age=0" in removed


@pytest.mark.parametrize("cookie", ["", "x" * 43, "a" * 42, "x" * 4000, "\u00e4"])
def test_other_text_is_no_session(guarded: Any, cookie: str) -> None:
    headers = {"cookie": f"{session.COOKIE}={cookie}".encode("latin-1"), **BROWSER}
    assert guarded.client.get("/runs", headers=headers).status_code == 303


def test_ended_ones_go_with_the_next_login(guarded: Any) -> None:
    key = add_key(guarded.service.database, Scope.READ)
    log_in(guarded.client, key.token)
    with guarded.service.database.write() as connection:
        connection.execute(update(sessions).values(expires_at=datetime.now(UTC)))
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303
    log_in(guarded.client, key.token)
    assert rows(guarded) == 1
    with guarded.service.database.read() as connection:
        assert SessionRepository(connection).key_of("x" * 43, datetime.now(UTC)) is None
