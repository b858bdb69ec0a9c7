"""A floor as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from driftscope_probes.floor.request import FloorRequest
from driftscope_probes.floor.store import FOLDER
from driftscope_service.experiments.quotas import at_most, check_model, model_folder
from driftscope_service.settings import Settings


class FloorProbeRequest(FloorRequest):
    """A floor: how far does rounding alone move this model's log-probabilities?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "smollm2-135m", "dtypes": ["bf16", "fp32"]}]}
    )

    model: str = Field(
        min_length=1, max_length=100, description="name from the catalogue or the service's list"
    )


NAME: Final = "floor"


def probe_request(request: FloorProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    at_most(
        *("/threads", str(request.threads), request.threads or 0),
        *(settings.threads_allowed, "DRIFTSCOPE_MAX_THREADS"),
    )
    tokens = request.prompts * request.max_tokens
    at_most(
        "/max_tokens",
        f"{request.prompts} prompts × {request.max_tokens} tokens = {tokens}",
        tokens,
        settings.max_response_tokens,
        "DRIFTSCOPE_MAX_RESPONSE_TOKENS",
    )
    folder = model_folder(request.model, settings)
    return {
        "request": request.model_dump(mode="json"),
        "model_path": None if folder is None else str(folder),
        "floors": str((settings.data_dir / FOLDER).absolute()),
    }
