"""Which scope a request needs."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_service.auth.key import Scope, allows, required_scope


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/healthz", None),
        ("GET", "/readyz", None),
        ("GET", "/problems/unauthenticated", None),
        ("GET", "/healthz/", "read"),
        ("GET", "/metrics", "read"),
        ("GET", "/", "read"),
        ("GET", "/openapi.json", "read"),
        ("GET", "/reports/report_1", "read"),
        ("GET", "/v1/runs", "read"),
        ("GET", "/v1/audit", "admin"),
        ("HEAD", "/audit", "admin"),
        ("HEAD", "/v1/runs/a/steps/3", "read"),
        ("GET", "/nowhere", "read"),
        ("PUT", "/v1/runs/a", "ingest"),
        ("POST", "/v1/runs/a/steps/3/logprobs", "ingest"),
        ("POST", "/v1/runs/a/steps/3/complete", "ingest"),
        ("POST", "/v1/reports", "ingest"),
        ("DELETE", "/v1/reports/report_1", "admin"),
        ("POST", "/probes/report_1/delete", "admin"),
        ("POST", "/v1/probes/paired", "probe"),
        ("POST", "/probes/new/paired", "probe"),
        ("POST", "/probes/new/paired/check", "read"),
        ("POST", "/v1/lint", "read"),
        ("POST", "/lint", "read"),
        ("POST", "/v1/jobs/job_1/cancel", "probe"),
        ("POST", "/v1/jobs/job_1/other", "admin"),
        ("POST", "/v1/runs", "admin"),
        ("DELETE", "/v1/runs/a", "admin"),
        ("POST", "/healthz", "admin"),
        ("BREW", "/v1/runs", "admin"),
    ],
)
def test_required_scope(method: str, path: str, scope: str | None) -> None:
    assert required_scope(method, path) == scope


def test_admin_is_all() -> None:
    assert all(allows([Scope.ADMIN], scope) for scope in Scope)
    assert not any(allows([Scope.READ], scope) for scope in Scope if scope is not Scope.READ)
    assert not allows([], Scope.READ)


def test_no_route_of_the_api_needs_admin_unseen(running: Any) -> None:
    """A new route that changes something has to be named in the rules."""
    needed = {
        (method.upper(), path): required_scope(method.upper(), path)
        for path, operations in running.client.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    # What the service starts by itself, what is gone for good, and who did what.
    assert {route for route, scope in needed.items() if scope is Scope.ADMIN} == {
        ("PUT", "/v1/schedules/{name}"),
        ("DELETE", "/v1/schedules/{name}"),
        ("DELETE", "/v1/runs/{run}"),
        ("DELETE", "/v1/runs/{run}/steps/{step}"),
        ("DELETE", "/v1/reports/{report_id}"),
        ("DELETE", "/v1/jobs/{job_id}"),
        ("GET", "/v1/audit"),
    }
    assert needed["POST", "/v1/runs/{run}/steps/{step}/logprobs"] is Scope.INGEST


def test_the_document_names_the_scope_of_every_operation(running: Any) -> None:
    document = running.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = required_scope(method.upper(), path)
            assert operation["security"] == ([{"api_key": [scope]}, {}] if scope else [])
            assert ("401" in operation["responses"]) is (scope is not None)
