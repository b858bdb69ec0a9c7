"""An explanation as a job: its request checked against the operator's quotas."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from driftscope_probes.explain.request import ExplainRequest
from driftscope_service.experiments.quotas import (
    ClientEngineSettings,
    check_model,
    check_resources,
    check_tokens,
    model_folder,
)
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import Settings

NAME: Final = "explain"
_DEFAULT_ENGINE = ClientEngineSettings.model_validate({})


class ExplainProbeRequest(ExplainRequest):
    """Which operation makes the gap between engine and trainer, and for what reason?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "smollm2-135m", "engine_dtype": "bf16", "trainer_dtype": "bf16"}]
        }
    )

    model: str = Field(
        min_length=1, max_length=100, description="name from the catalogue or the service's list"
    )
    trainer_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="the trainer's own, named as `model`; null: the engine's",
    )
    engine: ClientEngineSettings = _DEFAULT_ENGINE


def probe_request(request: ExplainProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    if request.trainer_model is not None:
        check_model(request.trainer_model, settings, "/trainer_model")
    check_tokens(request.prompts, request.sampling.max_tokens, settings)
    check_resources(request.engine, request.trainer.threads, settings)
    if request.engine.kind == "vllm-server":
        raise InvalidField(
            "/engine/kind",
            "a server tells no tensors between its ops",
            remedy="ask for kind vllm; driftscope explain --engine-server URL tells what can be "
            "known from outside.",
        )
    folder = model_folder(request.model, settings)
    trainer = request.trainer_model
    other = None if trainer is None else model_folder(trainer, settings)
    return {
        "request": request.model_dump(mode="json"),
        # Names of the catalogue are found by the probe itself.
        "model_path": None if folder is None else str(folder),
        "trainer_model_path": None if other is None else str(other),
    }
