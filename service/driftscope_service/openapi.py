"""The OpenAPI document of the app, with every error in the one shape that we answer with."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from driftscope_service.errors import MEDIA_TYPE
from driftscope_service.problem_responses import PROBLEM_CONTENT
from driftscope_service.schemas import FieldProblem, Problem

DESCRIPTION = (
    "Start probes, follow their jobs, read their reports. Every error is "
    f"`{MEDIA_TYPE}` (RFC 9457); its `type` is a path of this service that explains it."
)
_REFERENCES = "#/components/schemas/{model}"
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
    for path in schema["paths"].values():
        for operation in path.values():
            _use_problems(operation["responses"])
    return schema


def _use_problems(responses: dict[str, Any]) -> None:
    """Every route may fail; a 422 is a Problem as well, where FastAPI put its own."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"]["content"] = PROBLEM_CONTENT
    responses["default"] = {"description": "Any other error", "content": PROBLEM_CONTENT}
