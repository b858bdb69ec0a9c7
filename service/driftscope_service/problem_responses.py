"""How a route tells the OpenAPI document which problems it can end in."""

from __future__ import annotations

from typing import Any

from driftscope_service.errors import MEDIA_TYPE
from driftscope_service.problem_kinds import ProblemKind

PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def problems(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can end in one of `kinds`."""
    return {kind.status: {"description": kind.title, "content": PROBLEM_CONTENT} for kind in kinds}
