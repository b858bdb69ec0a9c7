"""/glossary: what the words and signs of the pages mean, one row each."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from driftscope_service.numbers.glossary import GROUPS
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.term_link import GLOSSARY_PATH

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get(GLOSSARY_PATH)
def get_glossary(request: Request) -> Response:
    return page(request, "pages/templates/glossary", title="Glossary", section=None, groups=GROUPS)
