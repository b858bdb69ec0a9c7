"""Classes of equal bits and the distance between them, on made-up scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_probes.matrix.classes import classes_of, difference, joined, pairs_of

from .made_up import LOGPROBS, TOKENS, greedy, moved, scores


def test_one_bit_in_one_token_makes_a_class() -> None:
    one_ulp = LOGPROBS.copy()
    one_ulp[0, 1] = np.nextafter(one_ulp[0, 1], np.float32(0))
    found = classes_of({"a": scores(), "b": scores(one_ulp), "c": scores(), "d": scores(one_ulp)})
    assert found == (("a", "c"), ("b", "d"))
    assert pairs_of(found) == [("a", "b")]


def test_nan_is_equal_to_itself_and_minus_zero_is_not_zero() -> None:
    nan, zero, minus = (np.array([[value]], np.float32) for value in (np.nan, 0.0, -0.0))
    assert classes_of({"a": scores(nan), "b": scores(nan)}) == (("a", "b"),)
    assert classes_of({"a": scores(zero), "b": scores(minus)}) == (("a",), ("b",))


def test_numbers_of_a_pair() -> None:
    found = difference(scores(), scores(moved(0.5)))
    assert found.tokens == 6 and found.not_finite == 0
    assert found.bitwise_equal_fraction == pytest.approx(5 / 6)
    assert found.abs_diff_max == 0.5 and found.abs_diff_mean == pytest.approx(0.5 / 6)
    assert found.kl_k3 == pytest.approx((np.expm1(0.5) - 0.5) / 6)
    assert found.first_difference is not None
    assert (found.first_difference.sequence, found.first_difference.token) == (1, 2)
    assert (found.first_difference.first, found.first_difference.second) == (-4.0, -3.5)


def test_the_first_difference_is_the_earliest_token_of_any_sequence() -> None:
    both = moved(0.5, sequence=0, token=2)
    both[1, 1] -= 1
    first = difference(scores(), scores(both)).first_difference
    assert first is not None and (first.sequence, first.token) == (1, 1)


def test_after_another_greedy_token_nothing_is_compared() -> None:
    tokens, logprobs = TOKENS.copy(), moved(1.0, sequence=0, token=2)
    tokens[0, 1] = 9
    found = difference(greedy(), greedy(logprobs, tokens))
    assert found.differing_tokens == 1 and found.tokens == 4
    assert found.bitwise_equal_fraction == 1.0 and found.abs_diff_max == 0.0
    first = found.first_difference
    assert first is not None and (first.first, first.second) == (2, 9)


def test_values_that_are_not_finite_are_counted() -> None:
    lost = LOGPROBS.copy()
    lost[0, 0] = -np.inf
    found = difference(scores(), scores(lost))
    assert found.not_finite == 1 and found.abs_diff_max == 0.0
    assert difference(scores(lost), scores(lost)).bitwise_equal_fraction == 1.0


def test_a_gap_beyond_exp_has_no_k3_but_a_mean() -> None:
    found = difference(
        scores(np.full((1, 1), -3000, np.float32)), scores(np.zeros((1, 1), np.float32))
    )
    assert found.abs_diff_mean == 3000 and (found.kl_k3 is None or np.isfinite(found.kl_k3))


def test_joined_classes_agree_in_every_subject() -> None:
    first, second = (("a", "b"), ("c",)), (("a",), ("b", "c"))
    assert joined([first, second], ["a", "b", "c"]) == (("a",), ("b",), ("c",))
    assert joined([first, first], ["a", "b", "c"]) == first


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_classes_are_the_partition_by_value(values: list[int]) -> None:
    every = {
        f"p{index}": scores(np.full((1, 1), value, np.float32))
        for index, value in enumerate(values)
    }
    found = classes_of(every)
    assert sorted(name for one in found for name in one) == sorted(every)
    assert len(found) == len(set(values))
    for one in found:
        assert len({values[int(name[1:])] for name in one}) == 1
