"""The OpenAPI document of the app, with every error in the one shape that we answer with."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from driftscope_service.auth.key import Scope, required_scope
from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import (
    MEDIA_TYPE,
    PROBLEM_CONTENT,
    FieldProblem,
    Problem,
    problems,
)

DESCRIPTION = (
    "Push the steps of a training run, start probes, follow their jobs, read their reports. Every "
    f"error is `{MEDIA_TYPE}` (RFC 9457); its `type` is a path of this service that explains it."
)
KEY_SCHEME = "api_key"
_KEY_DESCRIPTION = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "dsk_<id>_<secret>",
    "description": "Needed where the service listens beyond loopback or DRIFTSCOPE_REQUIRE_KEYS is "
    "set. The scope that an operation needs stands beside it; `admin` has all.",
}
_OF_KEYS = (
    problem_kinds.UNAUTHENTICATED,
    problem_kinds.SCOPE_MISSING,
    problem_kinds.RUN_OUT_OF_REACH,
)
_OF_LIMITS = (problem_kinds.RATE_LIMITED, problem_kinds.TOO_MANY_WRONG_KEYS)
_REFERENCES = "#/components/schemas/{model}"
_OWN_DEFINITIONS = "#/$defs/"
#: FastAPI adds these for its own error shape, which no answer of ours has.
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Let the app answer /openapi.json with `document`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def document(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas: dict[str, Any] = schema["components"]["schemas"]
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    for model in (FieldProblem, Problem):
        schemas[model.__name__] = model.model_json_schema(ref_template=_REFERENCES)
        schemas[model.__name__].pop("$defs", None)
    kinds = {"type": "string", "enum": list(app.state.service.kinds), "title": "Kind"}
    _lift_definitions(schema, schemas)
    schemas["JobBody"]["properties"]["kind"] = kinds
    schema["components"]["securitySchemes"] = {KEY_SCHEME: _KEY_DESCRIPTION}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _use_problems(operation["responses"])
            _use_keys(operation, required_scope(method.upper(), path))
    return schema


def _lift_definitions(node: Any, schemas: dict[str, Any]) -> None:
    """Bodies that a route reads itself bring `$defs` of their own, whose references are meant from
    the root of the document: there is nothing. They move to where all others are."""
    if isinstance(node, list):
        for one in node:
            _lift_definitions(one, schemas)
    if not isinstance(node, dict):
        return
    for name, definition in node.pop("$defs", {}).items():
        _lift_definitions(definition, schemas)
        if schemas.setdefault(name, definition) != definition:
            raise ValueError(f"there are two schemas {name}: give one of the models another name")
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith(_OWN_DEFINITIONS):
        node["$ref"] = _REFERENCES.format(model=reference.removeprefix(_OWN_DEFINITIONS))
    for one in list(node.values()):
        _lift_definitions(one, schemas)


def _use_keys(operation: dict[str, Any], scope: Scope | None) -> None:
    """OpenAPI 3.1 lets the list beside a scheme hold role names; {} is a service without keys."""
    if scope is None:
        operation["security"] = []
        return
    operation["security"] = [{KEY_SCHEME: [scope.value]}, {}]
    documented = operation["responses"]
    documented |= {str(status): one for status, one in problems(*_OF_KEYS).items()}
    for status, one in problems(*_OF_LIMITS).items():
        # The queue of jobs may have said the same status for its own reason.
        before = documented.get(str(status), {}).get("description")
        titles = one["description"] if before is None else f"{before}; or: {one['description']}"
        documented[str(status)] = {**one, "description": titles}


def _use_problems(responses: dict[str, Any]) -> None:
    """Every route may fail; a 422 is a Problem as well, where FastAPI put its own."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"]["content"] = PROBLEM_CONTENT
    responses["default"] = {"description": "Any other error", "content": PROBLEM_CONTENT}
