from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftscope_probes.errors import TraceError
from driftscope_probes.tokens import Extras, checked_tokens


def checked(extras: Extras | None) -> Extras:
    return checked_tokens(np.zeros(3), np.zeros(3), [0, 1, 3], extras=extras).extras


def test_what_fits_is_widened_and_a_lag_is_counted() -> None:
    given: dict[str, Any] = {
        "entropy": np.ones(3, np.float32),
        "position_ids": np.array([4, 5, 6], np.int32),
        "turn_ids": [0, 0, 1],
        "behavior_version": np.array([7, 9], np.uint8),
        "train_version": 9,
    }
    extras = checked(Extras(**given))
    assert extras.entropy is not None and extras.entropy.dtype == np.float64
    assert extras.position_ids is not None and extras.position_ids.dtype == np.int64
    lag = extras.lag()
    assert lag is not None and lag.tolist() == [2, 0]


def test_nothing_given_is_nothing() -> None:
    for given in (None, Extras(), Extras(train_version=3)):
        extras = checked(given)
        assert extras.entropy is None and extras.lag() is None
        assert extras.position_ids is None and extras.turn_ids is None


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"entropy": np.ones(2)}, "entropy has shape"),
        ({"entropy": np.ones(3, np.int64)}, "dtype int64"),
        ({"entropy": [[1.0], [1.0, 2.0], []]}, "not an array"),
        ({"turn_ids": np.ones(3)}, "accepted are integers"),
        ({"position_ids": np.array([0, 1, 2**40])}, "what int32 holds"),
        ({"position_ids": np.array([0, 1, 2**64 - 1], np.uint64)}, "what int32 holds"),
        ({"behavior_version": np.zeros(3, np.int32), "train_version": 1}, r"shape \(2,\)"),
        ({"behavior_version": np.zeros(2, np.int32)}, "without train_version"),
        ({"behavior_version": np.array([1, 5]), "train_version": 4}, "later weights"),
        ({"rank": np.zeros(3, np.int32)}, r"rank has shape \(3,\)"),
        ({"replica": np.array([0, -1])}, "replica is -1 for sequence 1"),
        ({"environment": [0.0, 1.0]}, "accepted are integers"),
        ({"cached_tokens": [3, 9], "prompt_lengths": [3, 8]}, "cached_tokens is 9 for sequence 1"),
    ],
)
def test_what_does_not_fit_is_refused(arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        checked(Extras(**arrays)).lag()
