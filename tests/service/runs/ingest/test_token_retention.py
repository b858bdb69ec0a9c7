"""What the policy promises, over arbitrary histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_service.runs.ingest.token_keeper import KeptStep, tokens_to_drop

START = datetime(2026, 1, 1, tzinfo=UTC)
ENOUGH = 10**9


def kept(
    run: str, step: int, *, size: int = 10, at: int | None = None, crossed: bool = False
) -> KeptStep:
    minutes = step if at is None else at
    return KeptStep(run, step, size, START + timedelta(minutes=minutes), crossed)


def test_what_a_later_attempt_superseded_is_in_no_ring_and_goes_first() -> None:
    def superseded(step: int, number: int, *, crossed: bool = False) -> KeptStep:
        return KeptStep("a", step, 10, START, crossed, superseded=True, number=number)

    old = [superseded(9, 1), superseded(9, 2, crossed=True)]
    series = [kept("a", 8, at=5), kept("a", 9, at=6), kept("a", 2, at=1, crossed=True)]
    # Step 9 of the first two attempts is not the newest of its run; one crossed a limit.
    assert tokens_to_drop([*old, *series], 2, ENOUGH) == [old[0]]
    assert tokens_to_drop([*old, *series], 2, 30) == [old[0], old[1]]
    assert tokens_to_drop([*old, *series], 2, 20) == [*old, series[0]]


HISTORIES = st.lists(
    st.builds(
        kept,
        run=st.sampled_from("abc"),
        step=st.integers(0, 20),
        size=st.integers(0, 100),
        at=st.integers(0, 20),
        crossed=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda one: (one.run, one.step),
)
RINGS = st.integers(0, 6)
BUDGETS = st.integers(0, 1000)
many = settings(max_examples=300, deadline=None)


def newest_of(history: list[KeptStep], run: str) -> KeptStep:
    return max((one for one in history if one.run == run), key=lambda one: one.step)


@many
@given(history=HISTORIES, ring_steps=RINGS, budget=BUDGETS)
def test_what_remains_fits_and_what_goes_was_there_once(
    history: list[KeptStep], ring_steps: int, budget: int
) -> None:
    dropped = tokens_to_drop(history, ring_steps, budget)
    assert len(set(dropped)) == len(dropped) and set(dropped) <= set(history)
    remaining = set(history) - set(dropped)
    assert sum(one.size_bytes for one in remaining) <= budget
    assert tokens_to_drop(sorted(remaining, key=str), ring_steps, budget) == []


@many
@given(history=HISTORIES, ring_steps=RINGS)
def test_within_the_budget_the_rings_and_what_crossed_a_limit_remain(
    history: list[KeptStep], ring_steps: int
) -> None:
    remaining = set(history) - set(tokens_to_drop(history, ring_steps, ENOUGH))
    assert {one for one in history if one.crossed_limit} <= remaining
    for run in "abc":
        steps = sorted((o for o in history if o.run == run), key=lambda one: one.step)
        ring = steps[len(steps) - min(ring_steps, len(steps)) :]
        assert set(ring) <= remaining
        others = [o for o in remaining if o.run == run and o not in ring]
        assert all(one.crossed_limit for one in others)


@many
@given(history=HISTORIES, ring_steps=st.integers(1, 6), budget=BUDGETS)
def test_the_order_in_which_kinds_go(history: list[KeptStep], ring_steps: int, budget: int) -> None:
    dropped = tokens_to_drop(history, ring_steps, budget)
    free = tokens_to_drop(history, ring_steps, ENOUGH)
    assert dropped[: len(free)] == free
    newest = {newest_of(history, run) for run in {one.run for one in history}}
    for_budget = dropped[len(free) :]
    kinds = [2 if one in newest else int(one.crossed_limit) for one in for_budget]
    assert kinds == sorted(kinds)
    remaining = set(history) - set(dropped)
    if for_budget:
        dearest = kinds[-1]
        left = {2 if one in newest else int(one.crossed_limit) for one in remaining}
        assert all(kind >= dearest for kind in left)
        # Nothing more than needed: without its last one, it would not fit.
        before = sum(one.size_bytes for one in remaining) + for_budget[-1].size_bytes
        assert before > budget
    for kind in set(kinds):
        ages = [one.received_at for one, k in zip(for_budget, kinds, strict=True) if k == kind]
        assert ages == sorted(ages)


@many
@given(history=HISTORIES.filter(bool), budget=BUDGETS, data=st.data())
def test_neither_the_order_given_nor_a_larger_budget_loses_more(
    history: list[KeptStep], budget: int, data: st.DataObject
) -> None:
    dropped = tokens_to_drop(history, 3, budget)
    assert tokens_to_drop(data.draw(st.permutations(history)), 3, budget) == dropped
    more = tokens_to_drop(history, 3, budget + data.draw(st.integers(0, 500)))
    assert dropped[: len(more)] == more


def test_the_newest_step_alone_goes_only_where_it_is_over_the_budget() -> None:
    history = [kept("a", 1, crossed=True), kept("a", 2), kept("b", 3, size=40)]
    assert tokens_to_drop(history, 2, 50) == [history[0]]
    assert tokens_to_drop(history, 2, 40) == [history[0], history[1]]
    assert tokens_to_drop(history, 2, 39) == [history[0], history[1], history[2]]


@pytest.mark.parametrize(("ring_steps", "left"), [(0, [1]), (1, [1, 5]), (2, [1, 3, 5])])
def test_a_ring_counts_by_step_not_by_arrival(ring_steps: int, left: list[int]) -> None:
    history = [kept("a", 5, at=0), kept("a", 3, at=9), kept("a", 1, crossed=True)]
    dropped = tokens_to_drop(history, ring_steps, ENOUGH)
    assert sorted(one.step for one in history if one not in dropped) == left
