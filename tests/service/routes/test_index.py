"""GET /: every link leads somewhere."""

from __future__ import annotations

from typing import Any


def test_every_link_is_a_route(running: Any) -> None:
    for path in running.client.get("/").json()["links"].values():
        assert running.client.get(path).status_code in (200, 405), path
