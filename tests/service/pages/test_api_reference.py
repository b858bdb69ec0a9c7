"""/api: every operation and field of the OpenAPI document, and links within the page that work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from driftscope_service.pages.api_reference import type_words


def test_every_operation_parameter_and_field_is_on_the_page(running: Any) -> None:
    shown = running.client.get("/api", headers={"accept": "text/html"}).text
    document = running.client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, one in operations.items():
            assert f"{method.upper()} {path}" in shown
            assert f'id="{one["operationId"]}"' in shown
            for parameter in one.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in shown
    for name, schema in document["components"]["schemas"].items():
        assert f'id="schema-{name}"' in shown
        for field in schema.get("properties", {}):
            assert f"<code>{field}</code>" in shown


def test_every_link_within_the_page_has_its_place(running: Any) -> None:
    shown = running.client.get("/api", headers={"accept": "text/html"}).text
    places = set(re.findall(r'id="([^"]+)"', shown))
    assert set(re.findall(r'href="#([^"]+)"', shown)) <= places | {"content"}


def test_a_call_says_the_key_and_the_body(running: Any) -> None:
    shown = running.client.get("/api", headers={"accept": "text/html"}).text
    call = re.search(r'aria-label="Call of put_run">([^<]+)', shown)
    assert call is not None
    assert "curl -X PUT" in call[1] and "Bearer $DRIFTSCOPE_API_KEY" in call[1]
    assert "application/json" in call[1] and "/v1/runs/{run}" in call[1]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 100}, "integer, 1 to 100"),
        ({"type": "string", "maxLength": 9}, "text, to 9 long"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text or null"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Run"}}, "list of Run"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({}, "anything"),
    ],
)
def test_a_type_in_words(schema: dict[str, Any], words: str) -> None:
    assert type_words(schema) == words
