"""Ways take turns; a ratio is that of the same round, and its median over rounds."""

from __future__ import annotations

import pytest
import torch

from driftscope_kernels.speed import row
from driftscope_kernels.speed.row import ROUND_SECONDS, alternate, best_ratio, ratio

ONE = torch.ones(1)


class Clock:
    """Time that passes only where a way says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def way(self, name: str, seconds: float, slower: float = 0.0) -> row.Way:
        def call() -> torch.Tensor:
            self.calls.append(name)
            self.now += seconds + slower * self.calls.count(name)
            return ONE

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(row, "time", clock)
    return clock


def test_ways_take_turns_and_the_first_calls_do_not_count(clock: Clock) -> None:
    long = 2 * ROUND_SECONDS
    times = alternate({"a": clock.way("a", long), "b": clock.way("b", 3 * long)}, 3)
    assert clock.calls == ["a", "a", "b", "b", *["a", "b"] * 3]
    assert times == {"a": pytest.approx([long] * 3), "b": pytest.approx([3 * long] * 3)}


def test_a_short_way_is_repeated_until_a_round_is_long_enough(clock: Clock) -> None:
    times = alternate({"a": clock.way("a", ROUND_SECONDS / 8)}, 2)
    assert clock.calls.count("a") == pytest.approx(2 + 2 * 8, abs=2)
    assert times["a"] == pytest.approx([ROUND_SECONDS / 8] * 2)


def test_a_ratio_pairs_the_rounds() -> None:
    """A load that slows one round of both changes nothing; medians of each would not say 2."""
    ours, theirs = [1.0, 10.0, 3.0], [2.0, 20.0, 6.0]
    assert ratio(theirs, ours) == 2.0
    assert ratio([2.0, 20.0, 9.0], ours) == 2.0
    assert ratio([4.0, 10.0, 9.0], ours) == 3.0  # of 4, 1 and 3
    assert best_ratio([4.0, 10.0, 9.0], [8.0, 2.0, 3.0]) == 2.0


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])
