from __future__ import annotations

from hashlib import sha256

import numpy as np
import numpy.typing as npt

from driftscope_kernels.contract.bounds import EXP_ULPS
from driftscope_kernels.reference.exp import LARGEST, SMALLEST, exp

SAMPLES = 40_000  # per unit of x near 0, fewer outside


def ulps(got: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> float:
    step = 2.0 ** (np.floor(np.log2(exact)) - 23)
    return float(np.max(np.abs(got.astype(np.float64) - exact) / step))


def test_within_its_bound_over_the_whole_range() -> None:
    for lowest in range(int(SMALLEST), int(LARGEST) + 1):
        x = np.linspace(lowest, lowest + 1, SAMPLES).astype(np.float32)
        x = x[(x >= SMALLEST) & (x <= LARGEST)]
        assert ulps(exp(x), np.exp(x.astype(np.float64))) < EXP_ULPS


def test_within_its_bound_for_tiny_arguments_of_every_binade() -> None:
    x = np.float32(2.0) ** np.arange(-149, 3, dtype=np.float32)
    x = np.concatenate([x, -x, x * np.float32(1.7), -x * np.float32(1.7)])
    assert ulps(exp(x), np.exp(x.astype(np.float64))) < EXP_ULPS


def test_never_falls_where_x_rises_by_many_steps() -> None:
    x = np.linspace(SMALLEST, LARGEST, 1_000_000).astype(np.float32)
    assert (np.diff(exp(x).astype(np.float64)) >= 0).all()


def test_the_bits_of_half_a_million_arguments_are_those_of_the_contract() -> None:
    """The last bit of a coefficient moves one result in 7000: fewer would not show it."""
    x = np.arange(-(2**18), 2**18).astype(np.float32) * np.float32(2.0**-12)
    assert sha256(exp(x).tobytes()).hexdigest()[:16] == "67fd272ecb556982"


def test_ends_of_the_range_and_special_values() -> None:
    up, down = np.float32(np.inf), np.float32(-np.inf)
    assert np.isfinite(exp(LARGEST)) and exp(np.nextafter(LARGEST, up)) == up
    assert exp(SMALLEST) >= np.float32(2.0**-126) and exp(np.nextafter(SMALLEST, down)) == 0
    assert np.exp(float(np.nextafter(SMALLEST, down))) < 2.0**-126
    assert exp(up) == up and exp(down) == 0 and np.isnan(exp(np.float32(np.nan)))
    assert exp(np.float32(0)) == 1 and exp(np.float32(-0.0)) == 1
    assert not np.signbit(exp(down))
