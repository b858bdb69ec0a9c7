"""The set of changes that brings a made-up gap down, whatever its size and order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.explain.server.greedy import Set, combine
from driftscope_probes.explain.server.measure import Moved

NAMES = "abcdefgh"
TOKENS = 300
FLOOR = 0.02


def made_up(wrong: dict[str, float], *, hidden: bool = False) -> Callable[[Set], Moved]:
    """Each wrong one moves every token by so much of a normal number; `hidden`: all or nothing."""
    drawn = np.random.default_rng(5)
    noise = {name: drawn.normal(size=TOKENS) for name in [*NAMES, "rounding"]}

    def measure(changes: Set) -> Moved:
        left = {name: size for name, size in wrong.items() if name not in changes}
        if hidden and left:
            left = wrong
        error = FLOOR * noise["rounding"]
        for name, size in left.items():
            error = error + size * noise[name]
        # A change that is not needed rounds otherwise.
        extra = len([name for name in changes if name not in wrong])
        return np.abs(error + 0.2 * FLOOR * extra * noise["a"])

    return measure


def enough(apart: Moved) -> bool:
    return float(np.sqrt(np.mean(apart**2))) <= 2 * FLOOR


@settings(max_examples=40, deadline=None)
@given(wrong=st.dictionaries(st.sampled_from(NAMES), st.floats(0.2, 1.0), min_size=1, max_size=2))
def test_what_is_wrong_is_found(wrong: dict[str, float]) -> None:
    sizes = list(wrong.values())
    found = combine({name: name for name in NAMES}, made_up(wrong), enough)
    if len(sizes) == 1 or max(sizes) / min(sizes) < 1.5:
        assert set(found.chosen) == set(wrong)
    assert len(found.alone) == len(NAMES)
    # Where the larger hides the smaller, what is chosen is still wrong, and nothing else is.
    assert set(found.chosen) <= set(wrong) and found.chosen


@settings(max_examples=20, deadline=None)
@given(pair=st.sets(st.sampled_from(NAMES), min_size=2, max_size=2))
def test_two_that_help_only_together_are_found_where_they_look_likely(pair: set[str]) -> None:
    only = sorted(pair)
    measure = made_up(dict.fromkeys(only, 0.5), hidden=True)
    found = combine({name: name for name in only}, measure, enough)
    assert set(found.chosen) == pair
    assert all(trial.effect.direction == "neither" for trial in found.alone)


def test_a_healthy_pair_needs_no_change() -> None:
    found = combine({name: name for name in NAMES}, made_up({}), enough)
    assert found.chosen == () and not found.further


def test_changes_of_one_axis_are_not_joined_and_equals_are_told() -> None:
    """Two values of one setting that mend alike: the first is chosen, the other is as good."""

    def measure(changes: Set) -> Moved | None:
        if "broken" in changes:
            return None
        asked.append(changes)
        size = FLOOR if {"base 1", "base 2"} & set(changes) else 1.0
        return size * np.linspace(0.5, 1.0, TOKENS)

    asked: list[Set] = []
    axes = {"broken": "x", "other": "y", "base 1": "base", "base 2": "base"}
    found = combine(axes, measure, enough)
    assert (found.chosen, found.as_good) == (("base 1",), (("base 2",),))
    assert [trial.changes for trial in found.alone] == [("other",), ("base 1",), ("base 2",)]
    assert all(not {"base 1", "base 2"} <= set(changes) for changes in asked)
