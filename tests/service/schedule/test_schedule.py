"""When a schedule is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.schedule.store import CronError, next_moment

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 3 * * *", datetime(2026, 11, 23, 3, 30, tzinfo=UTC)),
        ("0 12 * * *", datetime(2026, 11, 23, 12, tzinfo=UTC)),  # strictly after
        ("*/15 * * * *", datetime(2026, 11, 22, 12, 15, tzinfo=UTC)),
        ("0 4 * * 1", datetime(2026, 11, 23, 4, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_moment(cron: str, expected: datetime) -> None:
    assert next_moment(cron, NOON) == expected


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "0 0 31 2 *", "0 " * 60]
)
def test_what_no_moment_follows_from(cron: str) -> None:
    with pytest.raises(CronError):
        next_moment(cron, NOON)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 10**8))
def test_a_daily_moment_is_within_a_day_and_on_its_minute(
    minute: int, hour: int, seconds: int
) -> None:
    after = NOON + timedelta(seconds=seconds)
    found = next_moment(f"{minute} {hour} * * *", after)
    assert after < found <= after + timedelta(days=1)
    assert (found.minute, found.hour, found.second) == (minute, hour, 0)
