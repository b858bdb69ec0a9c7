"""POST /v1/lint: settings of an engine and its trainer as texts, looked at before anything runs."""

from __future__ import annotations

import re
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from driftscope_service.http import problem_kinds
from driftscope_service.http.errors import problems
from driftscope_service.lint.asked import LintBody, answer

#: Of all texts together. They are parsed in the service's own process, which answers others too.
MAX_LINT_BYTES: Final = 1_048_576
LINT_PATH: Final = re.compile(r"(/v1)?/lint")
router = APIRouter(prefix="/v1/lint", tags=["lint"])


class FindingBody(BaseModel):
    rule: str = Field(description="its name, for `ignore`")
    severity: Literal["error", "warning", "note"]
    where: str = Field(description="file and key, by the names that were given")
    value: bool | int | float | str
    why: str
    remedy: str
    source: str
    cause: str | None = Field(description="name under /causes that it would lead to")


class SourceBody(BaseModel):
    name: str
    settings: int = Field(description="how many of it a rule may ask for")


class DifferenceBody(BaseModel):
    kind: Literal["version", "hardware", "variable", "setting", "config"]
    name: str
    here: bool | int | float | str | None = Field(description="null: not set")
    there: bool | int | float | str | None = Field(description="of `against`; null: not set")
    where_here: str | None
    where_there: str | None
    changes: Literal["yes", "perhaps", "no"] = Field(description="whether it can change numerics")
    reason: str


class ComparisonBody(BaseModel):
    differences: list[DifferenceBody] = Field(description="what can change numerics first")
    same: int = Field(description="facts that are the same on both sides")
    untold: list[str] = Field(description="kinds of facts that only one side tells of")


class LintAnswer(BaseModel):
    findings: list[FindingBody] = Field(description="most severe first")
    read: list[SourceBody]
    rules: int = Field(description="rules that were looked at")
    ignored: list[str]
    against: ComparisonBody | None


@router.post(
    "",
    responses=problems(problem_kinds.INVALID_REQUEST, problem_kinds.CONTENT_TOO_LARGE),
)
def lint_settings(asked: LintBody) -> LintAnswer:
    """Find settings that are known to make an engine and its trainer disagree. Texts are read,
    never run; nothing of them is kept."""
    return LintAnswer.model_validate(answer(asked).to_dict())
