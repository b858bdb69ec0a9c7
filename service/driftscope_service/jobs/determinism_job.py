"""A determinism probe as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any

from driftscope_service.jobs.engine_endpoint import check_endpoint
from driftscope_service.jobs.model_folder import check_model, model_folder
from driftscope_service.jobs.operator_limit import at_most
from driftscope_service.schemas import DeterminismProbeRequest
from driftscope_service.settings import Settings

KIND = "determinism"


def probe_request(request: DeterminismProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    at_most(
        *("/threads", str(request.threads), request.threads or 0),
        *(settings.threads_allowed, "DRIFTSCOPE_MAX_THREADS"),
    )
    most = max(*request.batch_sizes, request.samples)
    at_most(
        "/samples",
        f"{most} sequences × {request.max_tokens} tokens",
        most * request.max_tokens,
        settings.max_response_tokens,
        "DRIFTSCOPE_MAX_RESPONSE_TOKENS",
    )
    endpoint = check_endpoint(request.engine, request.engine_endpoint, settings)
    fields = request.model_dump(mode="json", exclude={"engine_endpoint"})
    if endpoint is not None:
        fields |= {"server_url": endpoint.url, "server_model": endpoint.model}
    folder = model_folder(request.model, settings)
    return {
        "kind": KIND,
        "request": fields,
        "model_path": None if folder is None else str(folder),
    }
