"""A job and its attempts in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from driftscope_service.jobs.job import AttemptOutcome, Job, JobKind, JobState
from driftscope_service.numbers.metric_words import seconds
from driftscope_service.pages.words import Tone

WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "waiting",
    JobState.RUNNING: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
_TONES: Final[Mapping[JobState, Tone]] = {
    JobState.QUEUED: "none",
    JobState.RUNNING: "watch",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.CANCELLED: "none",
}
#: From here on a time is given in minutes and hours.
_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class JobWords:
    job: Job
    tone: Tone
    word: str
    title: str  # what was asked for
    #: Since it started, while it runs; None before, and where the work was done elsewhere.
    took: str | None

    @property
    def percent(self) -> int:
        """Rounded down: 100 only when it is done."""
        return int(self.job.progress.fraction * 100)

    @property
    def handed_in(self) -> bool:
        return _handed_in(self.job)

    @property
    def stopping(self) -> bool:
        return self.job.state is JobState.RUNNING and self.job.cancel_requested_at is not None


def job_words(job: Job, kinds: Mapping[str, JobKind]) -> JobWords:
    title = kinds[job.kind].label + (f" of {job.model}" if job.model else "")
    stopping = job.state is JobState.RUNNING and job.cancel_requested_at is not None
    word = "stopping" if stopping else WORDS[job.state]
    return JobWords(job, _TONES[job.state], word, title, _took(job))


def job_sentence(words: JobWords, before: int) -> str:
    """`before`: how many jobs wait in front of one that waits."""
    job = words.job
    if words.stopping:
        return "The probe has been told to stop and ends within seconds."
    if job.state is JobState.QUEUED:
        if job.attempts:
            number = len(job.attempts) + 1
            return f"Attempt {number} follows: {_why_again(job)}"
        if not before:
            return "It starts as soon as a slot is free."
        return f"It starts after {'the job' if before == 1 else f'the {before} jobs'} before it."
    if job.state is JobState.RUNNING:
        detail = f", {job.progress.detail}" if job.progress.detail else ""
        return f"{words.percent} % done: {job.progress.stage}{detail}."
    if job.state is JobState.FAILED:
        return "It failed, and left no report."
    if job.state is JobState.CANCELLED:
        if job.started_at is None:
            when = "another attempt" if job.attempts else "it"
            return f"It was cancelled before {when} began."
        return f"It was cancelled after {words.took}."
    if words.handed_in:
        return "Its work was done elsewhere, and its report handed in."
    return f"It took {words.took}."


def _why_again(job: Job) -> str:
    reason = job.attempts[-1].reason
    return "the one before left no report." if reason is None else reason.message


def duration(passed_s: float) -> str:
    if passed_s < _MINUTE_S:
        return seconds(max(0.0, passed_s))
    minutes, rest = divmod(int(passed_s), _MINUTE_S)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _took(job: Job) -> str | None:
    if job.started_at is None or _handed_in(job):
        return None
    return duration(((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds())


def _handed_in(job: Job) -> bool:
    """No executor claims a job at the very moment of its request."""
    return job.started_at == job.created_at


@dataclass(frozen=True, slots=True)
class AttemptRow:
    number: int
    word: str
    tone: Tone
    reason: str
    where: str
    took: str
    log: str  # a path


_OUTCOMES: Final[Mapping[AttemptOutcome | None, tuple[str, Tone]]] = {
    None: ("running", "watch"),
    AttemptOutcome.SUCCEEDED: ("succeeded", "good"),
    AttemptOutcome.FAILED: ("failed", "bad"),
    AttemptOutcome.CANCELLED: ("cancelled", "none"),
    AttemptOutcome.STOPPED: ("stopped with the service", "watch"),
    AttemptOutcome.LOST: ("lost with its machine", "bad"),
}


def attempt_rows(job: Job) -> list[AttemptRow]:
    """Empty where there was one: the page says all of it anyway."""
    if len(job.attempts) < 2 and job.state is not JobState.QUEUED:
        return []
    return [
        AttemptRow(
            one.attempt,
            *_OUTCOMES[one.outcome],
            "" if one.reason is None else one.reason.message,
            f"{one.host}, {one.executor}",
            duration(((one.finished_at or datetime.now(UTC)) - one.started_at).total_seconds()),
            f"/v1/jobs/{job.id}/logs?attempt={one.attempt}",
        )
        for one in job.attempts
    ]
