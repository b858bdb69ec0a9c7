"""A schedule: what the service starts by itself, when, and what it does about missed moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from croniter import croniter

#: Enough for five fields with lists; the table holds no more.
MAX_CRON_LENGTH: Final = 100
#: A due moment that is older was missed: the service was down or the machine asleep.
MISSED_AFTER_S: Final = 300.0


class Missed(StrEnum):
    """For moments that passed while the service was down. Several count as one."""

    ONCE = "once"  # made up for, a single time, at the next start
    SKIP = "skip"  # left out


class CronError(ValueError):
    """An expression that never matches a moment."""


@dataclass(frozen=True, slots=True)
class Schedule:
    name: str
    cron: str  # five fields, UTC
    kind: str  # the job's
    request: dict[str, Any]  # the job's, as the probe process reads it
    missed: Missed
    next_at: datetime  # the next due moment, also while the service is down
    last_at: datetime | None  # the last due moment that was dealt with
    last_job_id: str | None
    note: str | None  # what became of that moment, in words


def next_moment(cron: str, after: datetime) -> datetime:
    """The first moment of `cron` strictly after `after`, in UTC. Raises CronError."""
    fields = cron.split()
    if len(cron) > MAX_CRON_LENGTH or len(fields) != 5 or not croniter.is_valid(cron):
        raise CronError(
            f"{cron[:MAX_CRON_LENGTH]!r} is not accepted: give five fields (minute, hour, day, "
            "month, weekday), for example '30 3 * * *' for 03:30 UTC every night"
        )
    try:
        moment = croniter(cron, after).get_next(datetime)
    except (ValueError, KeyError) as error:  # no moment within croniter's fifty years
        raise CronError(f"no moment follows from {cron!r}: {error}") from None
    assert isinstance(moment, datetime)
    return moment.astimezone(UTC)
