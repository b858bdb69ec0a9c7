from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    alias_values,
    biggest,
    mean,
    smallest,
    unbiased_std,
)


def test_what_json_cannot_carry_becomes_none() -> None:
    values = {"a": 1, "b": math.nan, "c": math.inf, "d": -math.inf}
    assert alias_values(values, "p/") == {"p/a": 1.0, "p/b": None, "p/c": None, "p/d": None}


def test_nothing_gives_nan() -> None:
    for statistic in (mean, biggest, smallest, unbiased_std):
        assert math.isnan(statistic(np.zeros(0)))
    assert math.isnan(unbiased_std(np.ones(1)))
