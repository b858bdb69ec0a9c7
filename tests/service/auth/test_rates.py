"""Limits as such: how many pass in which time, and that they forget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_service.auth.rates import WINDOW_S, AtOnce, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


GAPS = st.lists(st.floats(0, 90, allow_nan=False), max_size=120)


@settings(deadline=None, max_examples=200)
@given(gaps=GAPS, per_minute=st.integers(1, 40))
def test_no_more_than_a_bucket_and_its_refill_ever_pass(gaps: list[float], per_minute: int) -> None:
    clock = Clock()
    rate, passed = Rate(clock), list[float]()
    for gap in gaps:
        clock.now += gap
        if rate.take("a", per_minute).allowed:
            passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            took_s = passed[last] - passed[first]
            most = per_minute + took_s * per_minute / WINDOW_S
            assert last - first + 1 <= most + 1e-3


@settings(deadline=None, max_examples=200)
@given(gaps=GAPS, per_minute=st.integers(1, 40))
def test_what_it_says_is_left_is_left_and_the_wait_is_enough(
    gaps: list[float], per_minute: int
) -> None:
    clock = Clock()
    rate = Rate(clock)
    taken = rate.take("a", per_minute)
    for gap in gaps:
        clock.now += gap
        taken = rate.take("a", per_minute)
        assert taken.allowed or taken.wait_s > 0
    for _ in range(taken.left):
        taken = rate.take("a", per_minute)
        assert taken.allowed
    clock.now += taken.wait_s
    assert rate.take("a", per_minute).allowed
    assert not rate.take("a", per_minute).allowed


def test_a_steady_pace_below_the_limit_is_never_refused() -> None:
    clock = Clock()
    rate = Rate(clock)
    for _ in range(1000):
        clock.now += WINDOW_S / 50
        assert rate.take("a", 50).allowed


def test_one_does_not_count_for_another() -> None:
    rate = Rate(Clock())
    assert rate.take("a", 1).allowed and not rate.take("a", 1).allowed
    assert rate.take("b", 1).allowed


def test_it_knows_no_more_than_it_may() -> None:
    rate = Rate(Clock(), most=10)
    for number in range(1000):
        rate.take(str(number), 5)
    assert len(rate) == 10


def test_at_once() -> None:
    running = AtOnce()
    with running.hold("a", 2) as first, running.hold("a", 2) as second:
        assert first and second
        with running.hold("a", 2) as third, running.hold("b", 2) as other:
            assert not third and other
    with running.hold("a", 1) as again:
        assert again
    assert len(running) == 0


def test_what_fails_is_let_go() -> None:
    running = AtOnce()
    with pytest.raises(ZeroDivisionError), running.hold("a", 1):
        raise ZeroDivisionError
    assert len(running) == 0
