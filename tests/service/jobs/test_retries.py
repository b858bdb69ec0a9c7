"""Which errors are tried again, how often and when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.errors import ProbeError
from driftscope_service.jobs.job import AttemptOutcome, JobAttempt, JobError
from driftscope_service.jobs.retries import JITTER, MOST_WAIT_S, RETRIES, final, wait_before_next

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def error(name: str) -> JobError:
    return JobError(name, "it ended.", "see.")


def ended(*names: str) -> list[JobAttempt]:
    return [
        JobAttempt(n, "i", "h", "local", NOW, NOW, AttemptOutcome.FAILED, error(name))
        for n, name in enumerate(names, 1)
    ]


def test_every_row_is_an_error_that_exists() -> None:
    for name, retry in RETRIES.items():
        assert name in ProbeError.kinds and retry.reason


@pytest.mark.parametrize("name", ["EngineError", "ProbeCrashed", "JobTimedOut", "ProbeTooLarge"])
def test_what_will_not_end_otherwise_fails_at_once(name: str) -> None:
    assert wait_before_next(error(name), ended(name)) is None


@pytest.mark.parametrize("name", RETRIES)
def test_each_reason_has_its_own_limit(name: str) -> None:
    most = RETRIES[name].most
    others = [other for other in RETRIES if other != name]
    for number in range(1, most + 1):
        assert wait_before_next(error(name), ended(*others, *[name] * number)) is not None
    assert wait_before_next(error(name), ended(*others, *[name] * (most + 1))) is None


@given(st.sampled_from(sorted(RETRIES)), st.integers(1, 3), st.floats(*JITTER))
def test_waits_grow_and_are_bounded(name: str, number: int, drawn: float) -> None:
    wait = wait_before_next(error(name), ended(*[name] * number), lambda *_: drawn)
    if wait is not None:
        assert wait == min(MOST_WAIT_S, RETRIES[name].first_wait_s * 2 ** (number - 1) * drawn)


def test_the_last_one_says_that_it_was_tried_more_than_once() -> None:
    assert final(error("NodeLost"), ended("NodeLost")) == error("NodeLost")
    assert "attempt 2, the last" in final(error("NodeLost"), ended("NodeLost", "NodeLost")).message
