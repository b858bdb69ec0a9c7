"""The committed OpenAPI document is the one that the service answers with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from driftscope_service.http.problem_kinds import KINDS

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture
def document(running: Any) -> dict[str, Any]:
    found: dict[str, Any] = running.client.get("/openapi.json").json()
    return found


def test_the_committed_document_is_current(document: dict[str, Any]) -> None:
    """If not: python -m driftscope_service.openapi_file > docs/openapi.json"""
    assert document == json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "driftscope_service.openapi_file"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == COMMITTED.read_text(encoding="utf-8")


def test_operations_are_named_described_and_can_fail(document: dict[str, Any]) -> None:
    operations = [
        operation
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert "start_paired_probe" in names
    for operation in operations:
        assert operation["description"] and operation["tags"]
        for status, response in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], operation


def unresolved(document: dict[str, Any]) -> list[str]:
    """References, of whatever form, that lead nowhere."""
    lost = []
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)):
        node: Any = document
        start, *parts = reference.split("/")
        for part in parts:
            node = node.get(part) if isinstance(node, dict) else None
        if start != "#" or node is None:
            lost.append(reference)
    return lost


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    assert unresolved(document) == []
    assert not any("ValidationError" in name for name in document["components"]["schemas"])


def test_a_lost_reference_is_found(document: dict[str, Any]) -> None:
    """As POST /v1/nightly had them: from the root of the document, where nothing is."""
    for lost in ("#/$defs/NightlyItem", "#/components/schemas/None", "other.json"):
        document["paths"]["/v1/nightly"]["post"]["requestBody"] = {"schema": {"$ref": lost}}
        assert unresolved(document) == [lost]


def test_listed_statuses_are_those_of_our_problems(document: dict[str, Any]) -> None:
    known = {str(kind.status) for kind in KINDS} | {"200", "201", "202", "204", "default"}
    for path in document["paths"].values():
        for operation in path.values():
            assert set(operation["responses"]) <= known


def test_pages_that_load_foreign_scripts_are_off(running: Any) -> None:
    assert running.client.get("/redoc").status_code == 404
    for path in ("/docs", "/api"):
        shown = running.client.get(path, headers={"accept": "text/html"}).text
        assert set(re.findall(r'<script[^>]* src="(.)', shown)) == {"/"}
