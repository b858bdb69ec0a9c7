"""The OpenAPI document: problem responses, and the document itself for `docs/openapi.json`.

Regenerate it with `python -m driftscope_service.openapi > docs/openapi.json`.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from driftscope_service.errors import MEDIA_TYPE
from driftscope_service.problem_kinds import ProblemKind
from driftscope_service.schemas import FieldProblem, Problem

DESCRIPTION = (
    "Start probes, follow their jobs, read their reports. Every error is "
    f"`{MEDIA_TYPE}` (RFC 9457); its `type` is a path of this service that explains it."
)
_REFERENCES = "#/components/schemas/{model}"
_PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
#: FastAPI adds these for its own error shape, which no answer of ours has.
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def problems(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can end in one of `kinds`."""
    return {kind.status: {"description": kind.title, "content": _PROBLEM_CONTENT} for kind in kinds}


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
        responses["422"]["content"] = _PROBLEM_CONTENT
    responses["default"] = {"description": "Any other error", "content": _PROBLEM_CONTENT}


def main() -> None:
    from driftscope_service.app import create_app
    from driftscope_service.service import build_service
    from driftscope_service.settings import Settings

    print(json.dumps(document(create_app(build_service(Settings()))), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
