"""/api: the reference of the API, made of the very /openapi.json that programs read.

Written here, since the pages that FastAPI brings load their scripts from another site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)
API_PATH: Final = "/api"
_SCHEMAS: Final = "#/components/schemas/"
#: Answered alike by every operation, and explained once at the top of the page.
_EVERYWHERE: Final = frozenset(["401", "403", "default"])
#: A longer list of accepted values would crowd out the words.
_MOST_VALUES: Final = 12


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    where: str  # path, query, header; "" in a body
    type: str
    refers: str | None  # name of the schema that the type is made of
    required: bool
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: str
    meaning: str
    refers: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    method: str
    path: str
    meaning: str
    scope: str | None  # of the key, None where none is needed
    parameters: tuple[Field, ...]
    bodies: tuple[str, ...]  # media types
    body: str | None  # name of its schema
    answers: tuple[Answer, ...]
    curl: str


@dataclass(frozen=True, slots=True)
class Schema:
    name: str
    meaning: str
    fields: tuple[Field, ...]
    values: tuple[str, ...]  # of an enumeration


@router.get(API_PATH)
def get_api_reference(request: Request) -> Response:
    document = request.app.openapi()
    return page(
        request,
        "pages/templates/api",
        title="API",
        section=None,
        about=document["info"]["description"],
        groups=operations(document, str(request.base_url).rstrip("/")),
        schemas=schemas(document),
    )


def operations(document: Mapping[str, Any], base: str) -> dict[str, list[Operation]]:
    """By tag, in the order of the document."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            group = (one.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_operation(path, method, one, base))
    return groups


def _operation(path: str, method: str, one: Mapping[str, Any], base: str) -> Operation:
    scope = next((roles[0] for entry in one["security"] for roles in entry.values()), None)
    content = one.get("requestBody", {}).get("content", {})
    named = (_refers(kind.get("schema", {})) for kind in content.values())
    refers = next(filter(None, named), None)
    return Operation(
        id=one["operationId"],
        method=method.upper(),
        path=path,
        meaning=one.get("description", ""),
        scope=scope,
        parameters=tuple(map(_parameter, one.get("parameters", []))),
        bodies=tuple(content),
        body=refers,
        answers=tuple(_answers(one["responses"])),
        curl=_curl(base + path, method.upper(), scope, tuple(content)),
    )


def _answers(responses: Mapping[str, Any]) -> Iterator[Answer]:
    for status, one in responses.items():
        if status in _EVERYWHERE:
            continue
        schema: dict[str, Any] = next(
            (kind.get("schema", {}) for kind in one.get("content", {}).values()), {}
        )
        yield Answer(status, one["description"], _refers(schema))


def _curl(url: str, method: str, scope: str | None, bodies: tuple[str, ...]) -> str:
    words = ["curl", *([] if method == "GET" else ["-X", method])]
    if scope is not None:
        words += ["-H", '"Authorization: Bearer $DRIFTSCOPE_API_KEY"']
    if bodies:
        words += ["-H", f'"Content-Type: {bodies[0]}"', "--data-binary", "@body"]
    return " ".join([*words, f"'{url}'"])


def _parameter(one: Mapping[str, Any]) -> Field:
    return _field(one["name"], one["schema"], one["in"], one.get("required", False), one)


def _field(
    name: str, schema: Mapping[str, Any], where: str, required: bool, about: Mapping[str, Any]
) -> Field:
    default = schema.get("default")
    return Field(
        name=name,
        where=where,
        type=type_words(schema),
        refers=_refers(schema),
        required=required,
        default=None if default is None else str(default),
        meaning=about.get("description") or schema.get("description") or "",
    )


def schemas(document: Mapping[str, Any]) -> list[Schema]:
    found = document["components"]["schemas"].items()
    return [
        Schema(
            name,
            one.get("description", ""),
            tuple(
                _field(field, schema, "", field in one.get("required", ()), schema)
                for field, schema in one.get("properties", {}).items()
            ),
            tuple(map(str, one.get("enum", ()))),
        )
        for name, one in sorted(found)
    ]


def type_words(schema: Mapping[str, Any]) -> str:
    """As a reader says it: "integer, 1 to 100", "list of text", "text or null"."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(type_words, choices)))
    if values := schema.get("enum"):
        more = " …" if len(values) > _MOST_VALUES else ""
        return "one of " + ", ".join(map(str, values[:_MOST_VALUES])) + more
    if "const" in schema:
        return str(schema["const"])
    kind: str = schema.get("type", "anything")
    if kind == "array":
        return f"list of {type_words(schema.get('items', {}))}"
    return _NAMES.get(kind, kind) + _bounds(schema)


_NAMES: Final[Mapping[str, str]] = {"string": "text", "boolean": "true or false"}


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    longest = schema.get("maxLength")
    return f", at most {high}" if high is not None else f", to {longest} long" if longest else ""


def _refers(schema: Mapping[str, Any]) -> str | None:
    """The one schema that is named in it, also within a list or beside null."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_SCHEMAS)
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), schema.get("items", {})]
    return next(filter(None, (_refers(one) for one in inner if one)), None)
