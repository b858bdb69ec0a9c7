"""GET /problems/{slug}: what the `type` of a problem means."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from driftscope_service.errors import not_found
from driftscope_service.problem_kinds import KINDS

router = APIRouter(tags=["operations"])


@router.get("/problems/{slug}", response_class=PlainTextResponse)
def get_problem_type(slug: str) -> PlainTextResponse:
    """What an error means and what to do about it."""
    for kind in KINDS:
        if kind.slug == slug:
            return PlainTextResponse(f"{kind.title} (HTTP {kind.status})\n\n{kind.meaning}\n")
    raise not_found("problem type", slug)
