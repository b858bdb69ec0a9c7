"""GET /: every link leads somewhere; a browser is sent to the runs."""

from __future__ import annotations

from typing import Any


def test_every_link_is_a_route(running: Any) -> None:
    for path in running.client.get("/").json()["links"].values():
        assert running.client.get(path).status_code in (200, 405), path


def test_a_browser_sees_the_runs(running: Any) -> None:
    answer = running.client.get("/", headers={"accept": "text/html,*/*"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
