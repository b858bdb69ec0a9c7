"""The pages of an app: every router, errors, and state kept between requests.

A new page adds its router here; one of a single experiment is part of its Kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from driftscope_service.auth import audit_routes, login_page
from driftscope_service.experiments import delete_pages, pages, start_pages, verdict_page
from driftscope_service.experiments.kind import Kind
from driftscope_service.jobs import page as jobs_page
from driftscope_service.lint import page as lint_page
from driftscope_service.pages import (
    api_reference,
    cause_page,
    docs_page,
    glossary_page,
    page_errors,
    static_files,
)
from driftscope_service.pages.navigation import Section
from driftscope_service.runs.pages import (
    compare_page,
    drift_plot,
    manage_page,
    run_page,
    runs_page,
    step_page,
)
from driftscope_service.runs.pages.coloured_tokens import TokenTexts
from driftscope_service.runs.pages.step_view import StepViews
from driftscope_service.service import Service

HOME: Final = "/runs"
home_router = APIRouter(include_in_schema=False)


@home_router.get("/")
def index(request: Request) -> Response:
    # A browser names HTML first; programs send */* or JSON.
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(HOME, 303)
    return JSONResponse(
        {
            "service": "driftscope",
            "version": version("driftscope"),
            "links": {
                "runs": "/v1/runs",
                "jobs": "/v1/jobs",
                "start_paired_probe": "/v1/probes/paired",
                "start_kernels_probe": "/v1/probes/kernels",
                "lint": "/v1/lint",
                "openapi": "/openapi.json",
                "api_reference": "/api",
                "documentation": "/docs",
                "metrics": "/metrics",
                "ready": "/readyz",
                "pages": HOME,
            },
        }
    )


ROUTERS: Final[tuple[APIRouter, ...]] = (
    home_router,
    login_page.router,
    static_files.router,
    cause_page.router,
    glossary_page.router,
    docs_page.router,
    api_reference.router,
    runs_page.router,
    run_page.router,
    drift_plot.router,
    step_page.router,
    manage_page.router,
    jobs_page.router,
    jobs_page.job_router,
    start_pages.router,
    delete_pages.router,
    pages.router,
    verdict_page.router,
    lint_page.router,
    compare_page.router,
    audit_routes.page_router,
)


def routers(kinds: Iterable[Kind]) -> tuple[APIRouter, ...]:
    return (*ROUTERS, *(router for kind in kinds for router in kind.page_routers))


def install(app: FastAPI, service: Service) -> None:
    kinds = service.kinds.values()
    app.state.sections = (
        Section("runs", "Runs", HOME),
        Section("compare", "Compare", "/compare"),
        Section("probes", "Probes", "/probes"),
        Section("kernels", "Kernels", "/kernels"),
        *(section for kind in kinds for section in kind.sections),
        Section("lint", "Lint", "/lint"),
        Section("jobs", "Jobs", "/jobs"),
        Section("audit", "Audit log", "/audit"),
    )
    page_errors.install_page_errors(app)
    app.state.step_views = StepViews()
    app.state.token_texts = TokenTexts(service.settings)
