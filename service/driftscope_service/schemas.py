"""Bodies of the API's requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.paired.request import PairedRequest
from driftscope_service.jobs.job import Job, JobState

FROM_OPERATOR = (
    "the service takes this from its own settings; name one of its servers as engine_endpoint"
)


class ClientEngineSettings(EngineSettings):
    """Engine options of a client: no addresses."""

    server_url: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")
    server_model: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")

    @field_validator("server_url", "server_model", mode="before")
    @classmethod
    def _no_addresses(cls, value: Any) -> None:
        if value is not None:
            raise ValueError(FROM_OPERATOR)


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
    engine: ClientEngineSettings = _DEFAULT_ENGINE
    engine_endpoint: str | None = Field(
        default=None,
        max_length=64,
        description="of the service's settings, for kind vllm-server",
    )


class KernelsProbeRequest(KernelsRequest):
    """A kernel check: do the bits of a row depend on the batch around it?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"]}]
        }
    )


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


class ProgressBody(BaseModel):
    stage: str
    fraction: float = Field(ge=0, le=1, description="of the whole job")
    detail: str


class JobErrorBody(BaseModel):
    error: str = Field(description="class of the error")
    message: str
    remedy: str = Field(description="what to do about it")


class JobLinks(BaseModel):
    self: str
    cancel: str
    events: str = Field(description="server-sent events until the job has ended")
    logs: str
    report: str | None = Field(description="JSON, once the job has succeeded")
    report_html: str | None = Field(description="page, once the job has succeeded")


class JobBody(BaseModel):
    id: str
    kind: Literal["paired", "kernels", "determinism", "nightly"]
    state: JobState
    model: str | None = Field(description="null: the kind has none")
    progress: ProgressBody
    error: JobErrorBody | None = Field(description="why it failed")
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks

    @staticmethod
    def of(job: Job) -> JobBody:
        path, report = f"/v1/jobs/{job.id}", job.report_id
        return JobBody.model_validate(
            {
                "id": job.id,
                "kind": job.kind,
                "state": job.state,
                "model": job.model,
                "progress": job.progress.to_dict(),
                "error": None if job.error is None else job.error.to_dict(),
                "cancel_requested": job.cancel_requested_at is not None,
                "created_at": job.created_at,
                "started_at": job.started_at,
                "finished_at": job.finished_at,
                "links": {
                    "self": path,
                    "cancel": f"{path}/cancel",
                    "events": f"{path}/events",
                    "logs": f"{path}/logs",
                    "report": None if report is None else f"/v1/reports/{report}",
                    "report_html": None if report is None else f"/reports/{report}",
                },
            }
        )


class JobPage(BaseModel):
    jobs: list[JobBody] = Field(description="newest first")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


class HealthBody(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class ReadyBody(BaseModel):
    status: Literal["ready"] = "ready"
    checks: dict[str, str] = Field(description="what was checked, each `ok`")


class FieldProblem(BaseModel):
    pointer: str = Field(description="JSON pointer into the body, or the parameter")
    message: str


class Problem(BaseModel):
    """RFC 9457. Further members depend on the type."""

    type: str = Field(description="path under /problems that explains it")
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
    remedy: str | None = None
