"""A paired probe as a job: its request checked against the operator's quotas."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from driftscope_probes.floor.store import FOLDER as FLOORS
from driftscope_probes.paired.request import PairedRequest
from driftscope_service.experiments.quotas import (
    ClientEngineSettings,
    at_most,
    check_endpoint,
    check_model,
    check_resources,
    check_tokens,
    model_folder,
)
from driftscope_service.settings import Settings


def check_paired(request: PairedProbeRequest, settings: Settings) -> None:
    """Raises InvalidField naming the setting that an operator can raise."""
    check_tokens(request.prompts, request.sampling.max_tokens, settings)
    at_most(
        "/resamples",
        str(request.resamples),
        request.resamples,
        settings.max_resamples,
        "DRIFTSCOPE_MAX_RESAMPLES",
    )
    check_resources(request.engine, request.trainer.threads, settings)


NO_FOLDERS: Final = (
    "a folder of the machine is no client's to name; use driftscope probe paired --adapter"
)
_DEFAULT_ENGINE = ClientEngineSettings.model_validate({})


class PairedProbeRequest(PairedRequest):
    """A paired probe: every engine dtype against every trainer mode."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m",
                    "prompts": 8,
                    "engine_dtypes": ["bf16", "fp16", "fp32"],
                    "trainer_dtypes": ["bf16", "fp16", "fp32"],
                    "sampling": {"max_tokens": 64, "seed": 0},
                }
            ]
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
    adapter: None = Field(default=None, description=f"must be null: {NO_FOLDERS}")
    engine_adapter: Literal["off"] = Field(
        default="off", description="must be off: it goes with `adapter`"
    )
    engine: ClientEngineSettings = _DEFAULT_ENGINE
    engine_endpoint: str | None = Field(
        default=None,
        max_length=64,
        description="of the service's settings, for kind vllm-server",
    )


NAME: Final = "paired"


def probe_request(request: PairedProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed.

    Names are resolved to folder and address when the job is accepted: settings may change later.
    """
    check_model(request.model, settings)
    if request.trainer_model is not None:
        check_model(request.trainer_model, settings, "/trainer_model")
    check_paired(request, settings)
    fields = request.model_dump(mode="json", exclude={"engine_endpoint"})
    endpoint = check_endpoint(request.engine.kind, request.engine_endpoint, settings)
    if endpoint is not None:
        fields["engine"] |= {"server_url": endpoint.url, "server_model": endpoint.model}
    folder = model_folder(request.model, settings)
    trainer = request.trainer_model
    other = None if trainer is None else model_folder(trainer, settings)
    return {
        "request": fields,
        "model_path": None if folder is None else str(folder),
        "trainer_model_path": None if other is None else str(other),
        "floors": str((settings.data_dir / FLOORS).absolute()),
    }
