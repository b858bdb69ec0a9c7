from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.mismatch.comparison import compare_tokens
from driftscope_probes.mismatch.impossible import find_impossible
from driftscope_probes.mismatch.oddities import FaultyKinds, Oddities, faulty_values, oddities
from driftscope_probes.tokens import Tokens, checked_tokens

SPECIAL = (np.nan, np.inf, -np.inf, -9999.0, -100.0, 0.0, 0.5)


def healthy(seed: int, tokens: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rollout = (-random.exponential(1.0, tokens) - 0.02).astype(np.float32)
    return rollout, (rollout + random.normal(0, 0.005, tokens)).astype(np.float32)


def found_in(tokens: Tokens) -> Oddities:
    return oddities(tokens, compare_tokens(tokens, resamples=0)[0])


def test_a_healthy_step_has_none() -> None:
    found = found_in(checked_tokens(*healthy(0), [0, 100, 400]))
    assert found.found == () and found.tokens == 0 and found.left_abs_diff_mean is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_flat_counts_are_those_of_the_rows(seed: int, masked: bool) -> None:
    """The compiled pass and the search for rows see the same tokens."""
    random = np.random.default_rng(seed)
    rollout, trainer = healthy(seed)
    for side in (rollout, trainer):
        where = random.random(side.size) < 0.1
        side[where] = random.choice(SPECIAL, int(where.sum()))
    mask = random.random(rollout.size) < 0.8 if masked else None
    tokens = checked_tokens(rollout, trainer, [0, 150, 400], mask)
    counted = compare_tokens(tokens, resamples=0)[0].hygiene
    rows = np.arange(400) if mask is None else np.flatnonzero(mask)
    impossible = find_impossible(rollout[rows], trainer[rows])
    kinds = ("nan", "minus_infinity", "plus_infinity", "sentinel", "positive", "nonfinite")
    for side_name, odd in (("rollout", impossible.rollout), ("trainer", impossible.trainer)):
        for kind in kinds:
            assert getattr(counted, f"{side_name}_{kind}") == getattr(odd, kind).size, kind
        assert getattr(counted, f"{side_name}_zero_unmatched") == odd.zero.size
        values = rollout[rows] if side_name == "rollout" else trainer[rows]
        above = values[(values > 0) & np.isfinite(values)]
        highest = getattr(counted, f"{side_name}_highest")
        assert highest == (float(above.max()) if above.size else 0.0)


def test_what_is_left_without_them() -> None:
    rollout, trainer = healthy(1)
    expected = np.abs(trainer[10:].astype(float) - rollout[10:]).mean()
    rollout[:10] = -9999.0
    found = found_in(checked_tokens(rollout, trainer, [0, 100, 400]))
    assert (found.tokens, found.left_tokens, found.sequences) == (10, 390, (0,))
    assert found.left_abs_diff_mean == pytest.approx(expected)


def test_zeros_of_a_nucleus_are_named_and_are_no_fault() -> None:
    rollout, trainer = healthy(2)
    rollout[::9], trainer[::9] = 0.0, -0.07
    (odd,) = found_in(checked_tokens(rollout, trainer, [0, 400])).found
    assert odd.kind == "zero" and not odd.faulty and "alone in its nucleus" in odd.sentence


@pytest.mark.parametrize("plant", [lambda r, t: r.__setitem__(slice(3, 9), -20.0)])
def test_faulty_values_are_those_that_were_named(
    plant: Callable[[np.ndarray, np.ndarray], None],
) -> None:
    rollout, trainer = healthy(3)
    plant(rollout, trainer)
    trainer[50], rollout[60] = np.nan, 0.0
    trainer[60] = -4.0
    tokens = checked_tokens(rollout, trainer, [0, 400])
    found = found_in(tokens)
    by_kind = {one.kind: one for one in found.found}
    kinds = FaultyKinds((by_kind["constant"].value, None), ("zero" in by_kind, False))
    assert np.flatnonzero(faulty_values(tokens, kinds)).tolist() == [*range(3, 9), 50, 60]
    assert found.tokens == 8
