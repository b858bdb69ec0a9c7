from __future__ import annotations

import numpy as np
import pytest

from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.reference.arithmetic import column_dot, column_sum, fold


@pytest.mark.parametrize("rows", [0, 1, ROW_BLOCK, 3 * ROW_BLOCK + 5])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_carrying_on_after_whole_blocks_gives_the_bits_of_the_whole(rows: int, cut: int) -> None:
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, 3)) * 10.0 ** rng.integers(-5, 5, (rows, 3))).astype(np.float32)
    cut = min(cut * ROW_BLOCK, rows)
    whole = fold(rows, lambda part: column_sum(x[part]), (3,), None)
    head = fold(cut, lambda part: column_sum(x[:cut][part]), (3,), None)
    rest = fold(rows - cut, lambda part: column_sum(x[cut:][part]), (3,), head)
    assert rest.tobytes() == whole.tobytes()


def test_a_cut_within_a_block_may_differ() -> None:
    """The control: the promise holds at multiples of the block only."""
    x = np.random.default_rng(0).standard_normal((4 * ROW_BLOCK, 64)).astype(np.float32)
    cut = ROW_BLOCK + 1
    whole = fold(len(x), lambda part: column_sum(x[part]), (64,), None)
    head = fold(cut, lambda part: column_sum(x[:cut][part]), (64,), None)
    rest = fold(len(x) - cut, lambda part: column_sum(x[cut:][part]), (64,), head)
    assert rest.tobytes() != whole.tobytes()


def test_blocks_are_added_to_the_total_in_order() -> None:
    # 2^25 swallows a 1 added to it, and 2^25 + (1 + 1 + 1 + 1) does not.
    values = np.zeros((3 * ROW_BLOCK, 1), np.float32)
    values[0], values[1:5] = 2.0**25, 1
    values[ROW_BLOCK : ROW_BLOCK + 4], values[-1] = 1, -(2.0**25)
    total = fold(len(values), lambda part: column_sum(values[part]), (1,), None)
    assert ROW_BLOCK == 64 and total.tolist() == [4]


def test_products_are_fused() -> None:
    x = np.array([[1], [1 + 2.0**-23]], np.float32)
    y = np.array([[-1], [1 - 2.0**-23]], np.float32)
    assert column_dot(x, y).tolist() == [-(2.0**-46)]
