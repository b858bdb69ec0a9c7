"""GET /: the runs for people, where to go from here for programs."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from driftscope_service.web.navigation import SECTIONS

router = APIRouter(include_in_schema=False)


@router.get("/")
def index(request: Request) -> Response:
    # A browser names HTML first; programs send */* or JSON.
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(SECTIONS[0].path, 303)
    return JSONResponse(
        {
            "service": "driftscope",
            "version": version("driftscope"),
            "links": {
                "runs": "/v1/runs",
                "jobs": "/v1/jobs",
                "start_paired_probe": "/v1/probes/paired",
                "start_kernels_probe": "/v1/probes/kernels",
                "openapi": "/openapi.json",
                "metrics": "/metrics",
                "ready": "/readyz",
                "pages": SECTIONS[0].path,
            },
        }
    )
