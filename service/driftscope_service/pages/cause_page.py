"""/causes: every cause that a diagnosis can name; /causes/{name}: one, as the catalogue has it.

The catalogue is that of this very version, so that the page is there without the repository.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from driftscope_probes.diagnosis.catalogue import catalogue
from driftscope_probes.diagnosis.cause import NAMED_FROM
from driftscope_probes.diagnosis.families.base import LEVELS, Cause
from driftscope_service.http.errors import not_found
from driftscope_service.numbers.diagnosis_words import UNEXPLAINED
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute

#: What stands earlier is heard first, since it explains what later tests see.
LEVEL_TITLES: Final = {
    "comparable": "Can the two sides be compared?",
    "alignment": "Do both speak of the same tokens?",
    "semantics": "Do both mean the same number?",
    "context": "Did both see the same context?",
    "weights": "Did both compute with the same weights?",
    "arithmetic": "Is it arithmetic?",
}
router = APIRouter(prefix="/causes", include_in_schema=False, route_class=PageRoute)


@router.get("")
def list_causes(request: Request) -> Response:
    known = catalogue()
    groups = {
        LEVEL_TITLES[level]: [one for one in known.causes if one.level == level] for level in LEVELS
    }
    return page(
        request,
        "pages/templates/causes",
        title="Causes",
        section="runs",
        groups=groups,
        unexplained=UNEXPLAINED,
        refused=known.refused,
    )


@router.get("/{name}")
def get_cause(
    request: Request, name: Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9_]+$")]
) -> Response:
    cause = catalogue().by_name.get(name)
    if cause is None and name != UNEXPLAINED:
        raise not_found("cause", name)
    return page(
        request,
        "pages/templates/cause",
        title="Unexplained" if cause is None else cause.title,
        section="runs",
        crumbs=[Crumb("Causes", "/causes")],
        cause=cause,
        alike=() if cause is None else alike(cause),
        level=None if cause is None else LEVEL_TITLES[cause.level],
        named_from=NAMED_FROM,
    )


def alike(cause: Cause) -> list[Cause]:
    """That look the same in one step; the control tells them apart."""
    known = catalogue().by_name
    return [known[name] for name in cause.alike if name in known]
