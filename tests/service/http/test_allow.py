"""A 405 names every method of its path, whichever of its routes comes first."""

from __future__ import annotations

import re
from typing import Any

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def test_on_every_path(running: Any) -> None:
    routes = [route for route in running.client.app.routes if hasattr(route, "methods")]
    paths = {re.sub(r"\{\w+(:path)?\}", "x1", route.path) for route in routes}
    known = {
        path: {one for route in routes if route.path_regex.match(path) for one in route.methods}
        for path in paths
    }
    refused = 0
    for path, methods in known.items():
        wrong = next(method for method in METHODS[::-1] if method not in methods)
        answer = running.client.request(wrong, path)
        assert answer.status_code == 405, (wrong, path)
        assert set(answer.headers["allow"].split(", ")) == methods, path
        refused += 1
    assert refused > 50
    assert any(len(methods) > 2 for methods in known.values())
