"""A diagnosis by controls as a job: its request checked against the operator's quotas, and what
the stored step brings.
"""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from driftscope_probes.diagnose.request import DiagnoseRequest
from driftscope_probes.floor.store import FOLDER as FLOORS
from driftscope_service.experiments.kind import ExperimentsService
from driftscope_service.experiments.quotas import (
    ClientEngineSettings,
    at_most,
    check_endpoint,
    check_model,
    check_resources,
    check_tokens,
    model_folder,
)
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import Settings

NAME: Final = "diagnose"
NO_FOLDERS: Final = (
    "a folder of the machine is no client's to name; use driftscope diagnose --adapter"
)
_DEFAULT_ENGINE = ClientEngineSettings.model_validate({})


class DiagnoseProbeRequest(DiagnoseRequest):
    """A diagnosis by controls: which cause makes engine and trainer differ?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m",
                    "run": "my-run",
                    "step": 120,
                    "budget": 600,
                    "control": ["dropout_off=dirty"],
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
    run: str | None = Field(
        default=None, max_length=128, description="run of the step that is to be explained"
    )
    step: int | None = Field(default=None, ge=0, description="number of that step")
    engine: ClientEngineSettings = _DEFAULT_ENGINE
    engine_endpoint: str | None = Field(
        default=None,
        max_length=64,
        description="of the service's settings, for kind vllm-server",
    )

    @field_validator("run", mode="before")
    @classmethod
    def _empty_is_none(cls, run: Any) -> Any:
        return run or None

    @model_validator(mode="after")
    def _run_with_step(self) -> Self:
        if (self.run is None) != (self.step is None):
            raise ValueError("run and step belong together: give both, or neither")
        return self


def probe_request(request: DiagnoseProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    if request.trainer_model is not None:
        check_model(request.trainer_model, settings, "/trainer_model")
    for index, name in enumerate(request.older_models):
        check_model(name, settings, f"/older_models/{index}")
    check_tokens(request.prompts, request.sampling.max_tokens, settings)
    check_resources(request.engine, request.trainer.threads, settings)
    at_most(
        "/budget",
        f"{request.budget} s",
        request.budget,
        settings.job_time_limit_seconds,
        "DRIFTSCOPE_JOB_TIME_LIMIT_SECONDS",
    )
    fields = request.model_dump(mode="json", exclude={"engine_endpoint", "run", "step"})
    endpoint = check_endpoint(request.engine.kind, request.engine_endpoint, settings)
    if endpoint is not None:
        fields["engine"] |= {"server_url": endpoint.url, "server_model": endpoint.model}
    folder = model_folder(request.model, settings)
    trainer = request.trainer_model
    other = None if trainer is None else model_folder(trainer, settings)
    older = [model_folder(name, settings) for name in request.older_models]
    return {
        "request": fields,
        "model_path": None if folder is None else str(folder),
        "trainer_model_path": None if other is None else str(other),
        # Names of the catalogue are found by the probe itself.
        "older_paths": [None if path is None else str(path) for path in older],
        "floors": str((settings.data_dir / FLOORS).absolute()),
    }


def step_of_request(request: DiagnoseProbeRequest, service: ExperimentsService) -> dict[str, Any]:
    """Raises InvalidField where there is no such step."""
    if request.run is None or request.step is None:
        return {}
    brought = service.step_brought(request.run, request.step)
    if brought is None:
        raise InvalidField(
            "/step",
            f"run {request.run!r} has no step {request.step} with a diagnosis",
            remedy="name a step that was pushed completely; GET /v1/runs/{run}/steps lists them.",
        )
    return {"data": brought, "source": {"run": request.run, "step": request.step}}
