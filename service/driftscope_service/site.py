"""The pages of an app: every router, errors, and what pages keep between requests.

A new page adds its router here.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, FastAPI

from driftscope_service.settings import Settings
from driftscope_service.web import (
    browser_errors,
    compare_page,
    drift_plot,
    home,
    job_page,
    jobs_page,
    kernels_page,
    login_page,
    nightly_page,
    probe_page,
    run_page,
    runs_page,
    static_files,
    step_page,
)
from driftscope_service.web.step.step_view import StepViews
from driftscope_service.web.step.token_text import TokenTexts

ROUTERS: Final[tuple[APIRouter, ...]] = (
    home.router,
    login_page.router,
    static_files.router,
    runs_page.router,
    run_page.router,
    drift_plot.router,
    step_page.router,
    jobs_page.router,
    job_page.router,
    probe_page.router,
    kernels_page.router,
    nightly_page.router,
    compare_page.router,
)


def install(app: FastAPI, settings: Settings) -> None:
    for router in ROUTERS:
        app.include_router(router)
    browser_errors.install(app)
    app.state.step_views = StepViews()
    app.state.token_texts = TokenTexts(settings)
