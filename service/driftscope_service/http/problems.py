"""How a route tells the OpenAPI document which problems it can end in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from driftscope_service.errors import MEDIA_TYPE
from driftscope_service.problem_kinds import ProblemKind


class FieldProblem(BaseModel):
    pointer: str = Field(description="JSON pointer into the body, or the parameter")
    message: str


class Problem(BaseModel):
    """RFC 9457. Further members depend on the type."""

    type: str = Field(description="path under /problems that explains it")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    remedy: str | None = None


PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def problems(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can end in one of `kinds`."""
    titles: dict[int, list[str]] = {}
    for kind in kinds:
        titles.setdefault(kind.status, []).append(kind.title)
    return {
        status: {"description": "; or: ".join(same), "content": PROBLEM_CONTENT}
        for status, same in titles.items()
    }
