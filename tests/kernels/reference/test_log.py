from __future__ import annotations

import numpy as np
import numpy.typing as npt

from driftscope_kernels.contract.bounds import LOG_ULPS
from driftscope_kernels.reference.log import log


def ulps(got: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> float:
    inside = exact != 0
    step = 2.0 ** (np.floor(np.log2(np.abs(exact[inside]))) - 23)
    return float(np.max(np.abs(got[inside].astype(np.float64) - exact[inside]) / step))


def binade(exponent: int, stride: int) -> npt.NDArray[np.float32]:
    """Every stride-th float32 with this exponent."""
    bits = np.arange(0, 1 << 23, stride, dtype=np.int32) + np.int32((exponent + 127) << 23)
    return bits.view(np.float32)


def test_within_its_bound_in_every_binade() -> None:
    for exponent in range(-126, 128):
        x = binade(exponent, 1009)
        assert ulps(log(x), np.log(x.astype(np.float64))) < LOG_ULPS


def test_within_its_bound_near_one() -> None:
    for exponent in (-1, 0):
        x = binade(exponent, 11)
        assert ulps(log(x), np.log(x.astype(np.float64))) < LOG_ULPS


def test_special_values_and_subnormal_arguments() -> None:
    x = np.array([0, -0.0, np.inf, 1, 1e-45, 3e-39], np.float32)
    with np.errstate(divide="ignore"):
        expected = np.log(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(log(x), expected, rtol=1e-7)
    assert not np.signbit(log(np.float32(1)))
    assert np.isnan(log(np.array([-1, -np.inf, np.nan], np.float32))).all()
