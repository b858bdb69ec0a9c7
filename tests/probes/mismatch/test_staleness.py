from __future__ import annotations

import numpy as np
import pytest

from driftscope_probes.mismatch import Extras, compare
from driftscope_probes.mismatch.number import NO_TOKENS
from driftscope_probes.mismatch.staleness import (
    NO_DIFFERENCE,
    NOTHING_FRESH,
    NOTHING_STALE,
    Staleness,
)

TOKENS_EACH = 4


def split(diff_of_sequence: list[float], versions: list[int]) -> Staleness:
    tokens = len(versions) * TOKENS_EACH
    trainer = -10.0 + np.repeat(diff_of_sequence, TOKENS_EACH)
    limits = np.arange(0, tokens + 1, TOKENS_EACH)
    extras = Extras(behavior_version=np.array(versions), train_version=9)
    found = compare(np.full(tokens, -10.0), trainer, limits, resamples=0, extras=extras).staleness
    assert found is not None
    return found


def test_a_known_floor_is_taken_off() -> None:
    # Lag 0 at 0.25; lag 1 at 1.0, of which 0.75 is stale; lag 3 below the floor counts as none.
    found = split([0.25, -0.25, 1.0, -0.125], [9, 9, 8, 6])
    assert found.lag0_abs_diff_mean == 0.25
    assert found.staleness_share == pytest.approx(0.75 / 1.125, rel=1e-12)
    assert (found.lag_mean, found.lag_max, found.stale_token_share) == (1.0, 3, 0.5)


def test_two_engines_that_differ_by_themselves_show_no_staleness() -> None:
    assert split([0.5, 0.5, 0.5], [9, 8, 7]).staleness_share == 0.0


def test_reasons() -> None:
    assert split([0.5], [9]).staleness_share == NOTHING_STALE
    none_fresh = split([0.5], [8])
    assert none_fresh.staleness_share == none_fresh.lag0_abs_diff_mean == NOTHING_FRESH
    assert split([0.5, 0.0], [9, 8]).staleness_share == NO_DIFFERENCE
    extras = Extras(behavior_version=np.array([8]), train_version=9)
    nothing = compare(np.zeros(0), np.zeros(0), [0, 0], resamples=0, extras=extras)
    assert nothing.value("lag_max") == nothing.value("staleness_share") == NO_TOKENS
