"""A job: its states, its errors, and the folder it works in."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from driftscope_probes.children import Crash
from driftscope_probes.crashes import killed_or_ended
from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress
from driftscope_service.jobs.stages import STAGES_NAME

LOG_NAME = "log.txt"
#: What stays when the job is over: small, and enough to see why it failed.
KEPT_NAMES = (LOG_NAME, STAGES_NAME, "request.json", "error.json")
#: Bytes kept of each log; the whole may be larger than a client wants.
LOG_TAIL_BYTES = 65_536


#: Characters kept in the database of what an attempt without a report wrote: a traceback with its
#: chained cause, and what an engine said before it.
LOG_KEPT_CHARACTERS = 16_384
ATTEMPT_PREFIX = "attempt-"


class JobFolder:
    """A folder in it for every attempt, so that two owners never write to the same file."""

    def __init__(self, data_dir: Path, job_id: str) -> None:
        self.path = data_dir / "jobs" / job_id

    def attempt(self, number: int) -> AttemptFolder:
        return AttemptFolder(self.path / f"{ATTEMPT_PREFIX}{number}")

    @property
    def newest(self) -> AttemptFolder:
        """The last attempt's; earlier versions had one for all, the job's own."""
        numbers = [
            int(path.name.removeprefix(ATTEMPT_PREFIX))
            for path in self.path.glob(f"{ATTEMPT_PREFIX}*")
            if path.name.removeprefix(ATTEMPT_PREFIX).isdecimal()
        ]
        return self.attempt(max(numbers)) if numbers else AttemptFolder(self.path)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    path: Path

    def logs(self) -> str:
        """The end of every log, oldest first: the probe's, then those of the engines it started."""
        if not self.path.is_dir():
            return ""
        logs = sorted(self.path.rglob(LOG_NAME), key=lambda log: (log.stat().st_mtime, log))
        return "".join(f"== {log.relative_to(self.path)} ==\n{_tail(log)}\n" for log in logs)

    def log_tail(self) -> str:
        """As the database keeps it: PostgreSQL stores no NUL."""
        return self.logs()[-LOG_KEPT_CHARACTERS:].replace("\x00", "\ufffd")

    def tidy(self) -> None:
        """Drop traces and results: they can be gigabytes, and the report has what matters."""
        for path in sorted(self.path.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.name not in KEPT_NAMES:
                path.unlink()


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text if size <= LOG_TAIL_BYTES else f"[… {size - LOG_TAIL_BYTES} bytes before]\n{text}"


class JobState(StrEnum):
    """queued → running → succeeded | failed | cancelled; running → queued where another attempt may
    succeed; a queued job may be cancelled without having run."""

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


class AttemptOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # the service stopped or was killed, the probe with it
    LOST = "lost"  # nothing was heard of its owner until the lease had expired


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One time that a job was claimed. Its log is not read with it."""

    attempt: int  # 1, 2, 3 …; the fencing token of its owner
    owner: str  # an instance
    host: str
    executor: str
    started_at: datetime
    finished_at: datetime | None
    outcome: AttemptOutcome | None  # None: under way
    reason: JobError | None  # None: under way, succeeded or cancelled


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
    started_at: datetime | None  # its newest attempt; None while it waits
    finished_at: datetime | None
    not_before: datetime | None = None  # of one that waits for another attempt
    attempts: tuple[JobAttempt, ...] = ()  # oldest first


class JobKind(Protocol):
    """What jobs know about the kind of an experiment."""

    @property
    def label(self) -> str: ...
    @property
    def runner(self) -> str: ...  # module that the process of the probe runs
    @property
    def smaller(self) -> str: ...  # what to ask for if memory ran out
    def report_page(self, report_id: str) -> str: ...


class ProbeCrashed(ProbeError):
    """The probe's process ended without a result and without an error of its own."""


class KilledForMemory(ProbeError):
    """The kernel killed a process of the probe, since the machine had no memory left."""


class ProbeTooLarge(ProbeError):
    """The processes of the probe took more memory than the service allows."""


class JobTimedOut(ProbeError):
    """The probe ran longer than the service allows."""


class ServiceStopped(ProbeError):
    """The service ended, or was killed, before the job finished."""


class OwnerLost(ProbeError):
    """Nothing was heard of the instance that ran the job until its lease had expired."""


class DatabaseUnavailable(ProbeError):
    """The database was locked for too long, or could not be reached."""


class ServiceFailed(ProbeError):
    """A bug of the service, or no room to store the report."""


def explain_crash(smaller: str, crash: Crash) -> ProbeCrashed:
    """`smaller`: what to ask for if memory ran out."""
    otherwise = "the job's log holds the traceback."
    return killed_or_ended(
        crash, ProbeCrashed, "probe's process", smaller=smaller, otherwise=otherwise
    )


def timed_out(limit_s: float) -> JobTimedOut:
    return JobTimedOut(
        f"the probe ran longer than the limit of {limit_s:g} s.",
        remedy="ask for less at once (prompts, tokens, dtypes; of kernels: targets, ops, quick), "
        "or let the operator raise DRIFTSCOPE_JOB_TIME_LIMIT_SECONDS.",
    )


def out_of_time(limit_s: float) -> JobTimedOut:
    return JobTimedOut(
        f"all attempts of the job together ran longer than the limit of {limit_s:g} s.",
        remedy="see why the earlier attempts ended; ask for less at once, or let the operator "
        "raise DRIFTSCOPE_JOB_TOTAL_TIME_LIMIT_SECONDS.",
    )


def too_large(used_gib: float, limit_gib: float) -> ProbeTooLarge:
    return ProbeTooLarge(
        f"the processes of the probe held {used_gib:.2f} GiB of memory, more than the limit of "
        f"{limit_gib:g} GiB.",
        remedy="ask for less at once (prompts, tokens, dtypes, the engine's cache), or let the "
        "operator raise DRIFTSCOPE_MAX_PROBE_MEMORY_GIB.",
    )


def service_stopped() -> ServiceStopped:
    return ServiceStopped(
        "the service stopped while the probe was running.", remedy="start it again."
    )


def owner_lost(owner: str, host: str) -> OwnerLost:
    return OwnerLost(
        f"nothing was heard of {owner} on {host}, which ran the probe, until its lease expired.",
        remedy="see whether that machine runs and reaches the database; then start it again.",
    )


def restored_meanwhile(owner: str, host: str) -> OwnerLost:
    return OwnerLost(
        f"the database was restored from a backup that was made while {owner} on {host} ran the "
        "probe.",
        remedy="start it again.",
    )


def database_unavailable(error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"the database did not answer in time: {error}",
        remedy="see whether it runs and its disk keeps up; then start the job again.",
    )


def service_failed(error: Exception) -> ServiceFailed:
    return ServiceFailed(
        f"the service could not finish the job: {type(error).__name__}: {error}",
        remedy="check free disk space in the data folder; the service's log has the traceback.",
    )
