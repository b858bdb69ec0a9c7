"""A job as the job table has it: state, progress, outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress


class JobState(StrEnum):
    """queued → running → succeeded | failed | cancelled; a queued job may also fail or be
    cancelled without having run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self not in UNFINISHED


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, in the words that its user reads."""

    error: str  # class of the error
    message: str
    remedy: str

    @staticmethod
    def of(error: ProbeError) -> JobError:
        return JobError(**error.to_dict())

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Job:
    number: int  # order of arrival
    id: str
    kind: str
    state: JobState
    model: str | None  # None: the kind has none
    progress: Progress
    error: JobError | None
    report_id: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
