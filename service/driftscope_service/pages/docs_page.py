"""/docs: the documentation of this version, with a search; /docs/{name}: one page of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from driftscope_service.http.errors import not_found
from driftscope_service.pages import documentation
from driftscope_service.pages.docs_search import search
from driftscope_service.pages.navigation import Crumb
from driftscope_service.pages.page import page
from driftscope_service.pages.page_errors import PageRoute
from driftscope_service.pages.response import PAGE_HEADERS

router = APIRouter(prefix=documentation.ROOT, include_in_schema=False, route_class=PageRoute)
MAX_ASKED = 200


@router.get("")
def get_index(request: Request, q: Annotated[str, Query(max_length=MAX_ASKED)] = "") -> Response:
    known = documentation.documents()
    asked = q.strip()
    return page(
        request,
        "pages/templates/docs",
        title=f"{asked} · Documentation" if asked else "Documentation",
        section=None,
        asked=asked,
        hits=search(known.values(), asked),
        document=known.get(documentation.INDEX),
    )


@router.get("/images/{path:path}")
def get_image(path: str) -> Response:
    name = f"images/{path}"
    found = documentation.images().get(name)
    if found is None:
        raise not_found("picture", path)
    return Response(
        found.read_bytes(),
        media_type=documentation.image_type(name),
        headers={**PAGE_HEADERS, "Cache-Control": "no-cache"},
    )


@router.get("/{name:path}")
def get_document(request: Request, name: str) -> Response:
    found = documentation.document(name)
    below = documentation.folder(name)
    if found is None and below:
        return page(
            request,
            "pages/templates/docs_folder",
            title=name,
            section=None,
            crumbs=[Crumb("Documentation", documentation.ROOT)],
            below=below,
        )
    if found is None:
        raise not_found("page of the documentation", name)
    return page(
        request,
        "pages/templates/document",
        title=found.title,
        section=None,
        crumbs=[Crumb("Documentation", documentation.ROOT)],
        document=found,
    )
