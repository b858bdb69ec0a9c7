"""A browser beyond loopback: the form takes a key, the cookie carries it, nothing else gets in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.sessions import LASTS
from driftscope_service.auth.store import KeyRepository
from driftscope_service.http import session

BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def guarded(run_service: Any) -> Iterator[Any]:
    with run_service(require_keys=True) as running:
        running.client.follow_redirects = False
        yield running


def make_key(running: Any, *scopes: Scope) -> str:
    text = new_key()
    with running.service.database.write() as connection:
        KeyRepository(connection).add(text, name="n", scopes=scopes, expires_at=None)
    return text.token


def log_in(running: Any, key: str, target: str = "/runs") -> Any:
    return running.client.post("/login", data={"key": key, "next": target})


def test_a_page_without_a_key_leads_to_the_form_and_back(guarded: Any) -> None:
    refused = guarded.client.get("/runs?order=name", headers=BROWSER)
    assert refused.status_code == 303
    form = guarded.client.get(refused.headers["location"])
    assert form.status_code == 200 and 'value="/runs?order=name"' in form.text
    answer = log_in(guarded, make_key(guarded, Scope.READ), "/runs?order=name")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?order=name")
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 200
    assert guarded.client.get("/v1/runs").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(guarded: Any) -> None:
    cookie = log_in(guarded, make_key(guarded, Scope.READ)).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    longest = int(LASTS.total_seconds())
    assert int(re.search(r"max-age=(\d+)", cookie)[1]) in (longest - 1, longest)  # type: ignore[index]
    assert cookie.startswith(f"{session.COOKIE}=") and "secure" not in cookie


def test_programs_get_a_problem_instead_of_the_form(guarded: Any) -> None:
    assert guarded.client.get("/runs").status_code == 401
    assert guarded.client.get("/v1/runs", headers=BROWSER).status_code == 401


@pytest.mark.parametrize("key", ["", "wrong", "dsk_aaaaaaaaaaaa_" + "a" * 43])
def test_a_wrong_key_sets_no_cookie(guarded: Any, key: str) -> None:
    answer = log_in(guarded, key)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text
    assert not key or key not in answer.text


def test_a_key_without_read_is_not_taken(guarded: Any) -> None:
    assert log_in(guarded, make_key(guarded, Scope.INGEST)).status_code == 403


def test_the_cookie_has_the_scopes_of_its_key(guarded: Any) -> None:
    log_in(guarded, make_key(guarded, Scope.READ))
    assert guarded.post("succeed").status_code == 403


def test_a_page_beyond_the_scope_of_the_key_says_so(guarded: Any) -> None:
    log_in(guarded, make_key(guarded, Scope.READ))
    answer = guarded.client.get("/audit", headers=BROWSER)
    assert answer.status_code == 403 and "this needs admin" in answer.text
    assert "Log out" in answer.text  # the way to another key


def test_a_revoked_key_ends_the_session(guarded: Any) -> None:
    key = make_key(guarded, Scope.READ)
    log_in(guarded, key)
    with guarded.service.database.write() as connection:
        KeyRepository(connection).revoke(key.split("_")[1])
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303


def test_another_sites_request_is_refused_even_with_the_cookie(guarded: Any) -> None:
    log_in(guarded, make_key(guarded, Scope.ADMIN))
    answer = guarded.client.post("/v1/jobs/job_x/cancel", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


def test_logout_forgets(guarded: Any) -> None:
    log_in(guarded, make_key(guarded, Scope.READ))
    guarded.client.post("/logout")
    assert guarded.client.get("/runs", headers=BROWSER).status_code == 303


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "", "\n"])
def test_it_leads_nowhere_else(guarded: Any, target: str) -> None:
    answer = log_in(guarded, make_key(guarded, Scope.READ), target)
    assert answer.headers["location"] == "/"


@pytest.mark.slow
def test_a_browser_logs_in_by_the_form(run_service: Any, serving: Any, browser: Any) -> None:
    with run_service(require_keys=True) as running, serving(running) as url:
        page = browser.new_page()
        page.goto(f"{url}/runs")
        page.get_by_label("Key").fill(make_key(running, Scope.READ))
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"{url}/runs")
        assert page.get_by_role("heading", level=1).inner_text() == "Runs"
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{url}/login")
        assert page.get_by_role("button", name="Log out").count() == 0
        page.close()


@pytest.mark.parametrize("key", ["", "wrong", "Bearer x", "dsk_aaaaaaaaaaaa_" + "a" * 43])
def test_a_wrong_key_is_answered_about_the_key_that_was_typed(guarded: Any, key: str) -> None:
    told = log_in(guarded, key).text
    assert "The key was not accepted: a key looks like `dsk_" in told
    assert "header" not in told.split("<main", 1)[1]


def test_a_key_of_another_service_is_said_to_be_unknown(guarded: Any) -> None:
    assert "no key of this service has this text" in log_in(guarded, new_key().token).text
