"""GET /: where to go from here."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> dict[str, str | dict[str, str]]:
    return {
        "service": "driftscope",
        "version": version("driftscope"),
        "links": {
            "jobs": "/v1/jobs",
            "start_paired_probe": "/v1/probes/paired",
            "start_kernels_probe": "/v1/probes/kernels",
            "openapi": "/openapi.json",
            "metrics": "/metrics",
            "ready": "/readyz",
        },
    }
