"""A determinism probe as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_service.experiments.quotas import (
    FROM_OPERATOR,
    at_most,
    check_endpoint,
    check_model,
    model_folder,
)
from driftscope_service.settings import Settings


class DeterminismProbeRequest(DeterminismRequest):
    """A determinism probe: along which axes does the engine give other bits?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m",
                    "axes": ["batch_size"],
                    "batch_sizes": [1, 2, 8],
                    "kernels": "both",
                }
            ]
        }
    )

    model: str = Field(
        min_length=1, max_length=100, description="name from the catalogue or the service's list"
    )
    server_url: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")
    server_model: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")
    engine_endpoint: str | None = Field(
        default=None,
        max_length=64,
        description="of the service's settings, for engine vllm-server",
    )

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        """The service adds it: a client gives none."""
        return self


def probe_request(request: DeterminismProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    at_most(
        *("/threads", str(request.threads), request.threads or 0),
        *(settings.threads_allowed, "DRIFTSCOPE_MAX_THREADS"),
    )
    most = max(*request.batch_sizes, *(request.run_rows or ()), request.samples)
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
    return {"request": fields, "model_path": None if folder is None else str(folder)}
