"""Bodies of the API's requests and responses."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from driftscope_service.jobs.job import Job, JobState


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
    kind: str  # the OpenAPI document lists those that there are
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
