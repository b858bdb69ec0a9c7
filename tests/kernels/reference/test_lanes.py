from __future__ import annotations

import numpy as np

from driftscope_kernels.options import LANES
from driftscope_kernels.reference.arithmetic import lane_dot, lane_sum, row_max


def written_out(row: list[np.float32]) -> np.float32:
    """The order as the contract words it, one addition at a time."""
    lanes = [np.float32(0)] * LANES
    for k, value in enumerate(row):
        lanes[k % LANES] = lanes[k % LANES] + value
    for half in (8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
    return lanes[0]


def test_order_is_the_one_written_out() -> None:
    rng = np.random.default_rng(0)
    for n in (0, 1, 15, 16, 17, 100):
        x = (rng.standard_normal((3, n)) * 10.0 ** rng.integers(-6, 6, (3, n))).astype(np.float32)
        assert lane_sum(x).tolist() == [written_out(list(row)) for row in x]


def test_a_product_is_not_rounded_before_it_is_added() -> None:
    x = np.zeros((1, 17), np.float32)
    x[0, 0], x[0, 16] = 1, 1 + 2.0**-23
    y = np.zeros((1, 17), np.float32)
    y[0, 0], y[0, 16] = -1, 1 - 2.0**-23
    assert lane_dot(x, y).tolist() == [-(2.0**-46)]


def test_row_max_is_free_of_order_and_passes_nan_on() -> None:
    x = np.array([[1, np.nan, 3], [-np.inf, -np.inf, -np.inf]], np.float32)
    assert np.isnan(row_max(x)[0]) and np.isnan(row_max(x[:, ::-1])[0])
    assert row_max(x)[1] == -np.inf
    assert row_max(np.zeros((2, 0), np.float32)).tolist() == [-np.inf, -np.inf]
