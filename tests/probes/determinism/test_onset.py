"""Bisection between tested values, against a scan over every integer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.determinism.batch import Onset, Value, find_onset

SIZES = (1, 2, 4, 8, 16, 32)


def found(values: tuple[Value, ...], threshold: int, *, budget: int = 8) -> Onset | None:
    """An engine that differs from `threshold` on, seen from the reference."""
    upwards = not isinstance(values[-1], int) or values[-1] > int(values[0])

    def differs(value: int) -> bool:
        return value >= threshold if upwards else value <= threshold

    known: dict[Value, bool] = {
        value: differs(value) for value in values[1:] if isinstance(value, int)
    }
    return find_onset("size", values, known, differs, ordered=True, budget=budget)


@given(st.integers(2, 32))
def test_the_onset_is_exact(threshold: int) -> None:
    onset = found(SIZES, threshold)
    assert onset is not None
    assert (onset.equal_up_to, onset.differs_from) == (threshold - 1, threshold)
    assert onset.tested[: len(SIZES)] == SIZES


@given(st.integers(16, 127))
def test_downwards_as_well(threshold: int) -> None:
    onset = found((2048, 128, 64, 32, 16), threshold, budget=20)
    assert onset is not None
    assert (onset.equal_up_to, onset.differs_from) == (threshold + 1, threshold)


def never(value: int) -> bool:
    pytest.fail(f"asked for {value}")


def test_nothing_differs() -> None:
    assert found(SIZES, 33) is None


def test_the_budget_leaves_an_interval() -> None:
    onset = found((1, 100), 50, budget=2)
    assert onset is not None
    assert (onset.equal_up_to, onset.differs_from) == (25, 50)
    assert onset.tested == (1, 100, 50, 25)


def test_without_a_budget_tested_values_bound_it() -> None:
    onset = found(SIZES, 7, budget=0)
    assert onset is not None
    assert (onset.equal_up_to, onset.differs_from, onset.tested) == (4, 8, SIZES)


def test_a_relapse_does_not_hide_the_first_difference() -> None:
    differing = {2, 3}
    onset = find_onset(
        "size",
        (1, 2, 4),
        {2: True, 4: False},
        lambda value: value in differing,
        ordered=True,
        budget=8,
    )
    assert onset == Onset(
        setting="size",
        equal_up_to=1,
        differs_from=2,
        tested=(1, 2, 4),
    )


def test_names_are_not_halved() -> None:
    onset = find_onset(
        "cache",
        ("off", "cold", "hot"),
        {"cold": False, "hot": True},
        never,
        ordered=False,
        budget=8,
    )
    assert onset == Onset(
        setting="cache", equal_up_to=None, differs_from="hot", tested=("off", "cold", "hot")
    )


def test_names_among_numbers_end_the_halving() -> None:
    onset = find_onset(
        "tokens",
        (16, "other", 64),
        {"other": False, 64: True},
        never,
        ordered=True,
        budget=8,
    )
    assert onset == Onset(
        setting="tokens", equal_up_to="other", differs_from=64, tested=(16, "other", 64)
    )
