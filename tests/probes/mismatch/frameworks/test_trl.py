from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch.frameworks.small_frameworks import TRL_MODES, TrlMode, trl
from driftscope_probes.mismatch.frameworks.unmasked_tokens import unmasked_tokens
from driftscope_probes.tokens import checked_tokens

DIFFERENCE, RATIO = "sampling/sampling_logp_difference/", "sampling/importance_sampling_ratio/"


@pytest.mark.parametrize("mode", TRL_MODES)
def test_equals_an_oracle(mode: TrlMode, batches: Any, oracle: Any) -> None:
    for pair, rows in batches:
        diffs = [[trainer - rollout for rollout, trainer in row] for row in rows]
        flat = [d for row in diffs for d in row]
        logs = [math.fsum(row) for row in diffs] if mode.startswith("sequence") else flat
        ratios = [oracle.exp(value) for value in logs]
        if mode.endswith("truncate"):
            ratios = [min(r, 3.0) for r in ratios]
        else:
            ratios = [0.0 if r > 3.0 else r for r in ratios]
        expected = {
            DIFFERENCE + "mean": oracle.mean([abs(d) for d in flat]),
            DIFFERENCE + "max": max(abs(d) for d in flat),
            RATIO + "min": min(ratios),
            RATIO + "mean": oracle.mean(ratios),
            RATIO + "max": max(ratios),
        }
        with np.errstate(all="ignore"):
            oracle.agrees(trl(unmasked_tokens(pair), mode), expected)


def test_an_unscored_token_is_left_out_of_the_difference_and_enters_the_ratio_as_one() -> None:
    pair = checked_tokens(np.array([-1.0, np.nan]), np.array([-0.5, -1.0]), [0, 2])
    values = trl(unmasked_tokens(pair), "token_truncate")
    assert values[DIFFERENCE + "mean"] == 0.5
    assert values[RATIO + "min"] == 1.0


def test_nothing_is_reported_as_agreement() -> None:
    values = trl(unmasked_tokens(checked_tokens([-1.0], [-2.0], [0, 1], [False])))
    assert values[DIFFERENCE + "mean"] == 0.0
    assert values[RATIO + "mean"] == 1.0
