from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from driftscope_probes.mismatch import compare
from driftscope_probes.mismatch.number import OVERFLOW
from driftscope_probes.tokens import Tokens


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_plain_loops(
    seed: int,
    batch: Callable[[int], Tokens],
    plain: Callable[[Tokens], list[list[tuple[int, float, float]]]],
    compared: Callable[[Tokens], dict[str, Any]],
) -> None:
    pair = batch(seed)
    sequences = [[t - r for _, r, t in sequence] for sequence in plain(pair)]
    products = [math.exp(math.fsum(s)) for s in sequences]
    geometric = [math.exp(math.fsum(s) / len(s)) for s in sequences]
    found = compared(pair)
    for name, values in (("seq_ratio", products), ("seq_geo_ratio", geometric)):
        mean = math.fsum(values) / len(values)
        assert found[f"{name}_mean"] == pytest.approx(mean, rel=1e-12), name
        assert found[f"{name}_min"] == pytest.approx(min(values), rel=1e-12), name
        assert found[f"{name}_max"] == pytest.approx(max(values), rel=1e-12), name


def test_a_product_that_overflows_is_undefined_and_its_geometric_mean_is_not() -> None:
    found = compare(np.full(100, -50.0), np.full(100, -40.0), [0, 100], resamples=0)
    assert found.value("seq_ratio_mean") == found.value("seq_ratio_max") == OVERFLOW
    assert found.value("seq_geo_ratio_mean") == pytest.approx(math.exp(10))
