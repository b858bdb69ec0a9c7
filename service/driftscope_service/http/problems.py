"""Problems as the API documents them: responses, bodies, and the page of each type."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from driftscope_service.http.errors import MEDIA_TYPE, not_found
from driftscope_service.http.problem_kinds import KINDS, ProblemKind


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


router = APIRouter(tags=["operations"])


@router.get("/problems/{slug}", response_class=PlainTextResponse)
def get_problem_type(slug: str) -> PlainTextResponse:
    """What an error means and what to do about it."""
    for kind in KINDS:
        if kind.slug == slug:
            return PlainTextResponse(f"{kind.title} (HTTP {kind.status})\n\n{kind.meaning}\n")
    raise not_found("problem type", slug)
