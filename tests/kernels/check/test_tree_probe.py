"""The probe reads orders of addition that are known, and tells two kernels apart that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.check.cases.case import Shape
from driftscope_kernels.check.tree_probe import can_read, leaf_windows, read_trees, subtree_sizes
from driftscope_kernels.check.twins.ordered_ops import PLAIN
from driftscope_kernels.check.twins.reassociated import DTYPES, Twin, compute
from driftscope_kernels.registry import Kernel

ROWS = 17
ALL = sorted(DTYPES, key=str)


def _kernel(op: str, how: str) -> Kernel:
    def run(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        return compute(op, inputs, params, how)

    return Kernel("test", op, how, run, DTYPES)


def _in_order(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    """One accumulator, from the first to the last."""
    x, weight = inputs["x"].float(), inputs["weight"].float()
    total = torch.zeros(len(x), len(weight))
    for k in range(x.shape[1]):
        total = total + x[:, k, None] * weight[None, :, k]
    return total.to(inputs["x"].dtype)


SEQUENTIAL = Kernel("test", "linear", "in_order", _in_order, DTYPES)


@pytest.mark.parametrize("dtype", ALL)
def test_a_sequential_sum_grows_by_one_leaf(dtype: torch.dtype) -> None:
    sizes = subtree_sizes(SEQUENTIAL, "linear", Shape(40, 6), dtype, {}, 3, 2)
    assert sizes == list(range(2, 41))


def test_two_halves_meet_as_wholes() -> None:
    def halves(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        left = {"x": inputs["x"][:, :20], "weight": inputs["weight"][:, :20]}
        right = {"x": inputs["x"][:, 20:], "weight": inputs["weight"][:, 20:]}
        return _in_order(left, params) + _in_order(right, params)

    kernel = Kernel("test", "linear", "halves", halves, DTYPES)
    sizes = subtree_sizes(kernel, "linear", Shape(40, 6), torch.float32, {}, 3, 0)
    assert sizes == [*range(2, 21), *[40] * 20]


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("op", ["linear", "bmm", "sum", "mean", "sdpa"])
def test_one_order_is_one_tree(op: str, dtype: torch.dtype) -> None:
    if not can_read(op, dtype):
        return
    shape = Shape(300, 8)
    params = {"dim": -1}
    reading = read_trees(_kernel(op, PLAIN), op, shape, dtype, params, ROWS)
    assert reading.equal is True
    assert reading.leaves <= (300 if dtype == torch.float32 else 256)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("trigger", ["one_row", "three_rows", "remainder", "position"])
@pytest.mark.parametrize("op", ["linear", "sum"])
def test_another_order_for_some_rows_is_seen(op: str, trigger: str, dtype: torch.dtype) -> None:
    kernel = Twin("split_2", trigger).kernel(op)
    reading = read_trees(kernel, op, Shape(300, 8), dtype, {}, ROWS)
    assert reading.equal is False
    assert reading.where is not None


def test_an_accumulator_that_swallows_nothing_cannot_be_read() -> None:
    def exact(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        return torch.full((len(inputs["x"]), len(inputs["weight"])), float("nan"))

    kernel = Kernel("test", "linear", "nan", exact, DTYPES)
    assert read_trees(kernel, "linear", Shape(20, 4), torch.float32, {}, 3).equal is None


@pytest.mark.parametrize("k", [3, 255, 256, 257, 1000])
def test_windows_cover_every_position(k: int) -> None:
    windows = list(leaf_windows(k, 256))
    assert max(map(len, windows)) <= 256
    assert sorted({int(p) for window in windows for p in window}) == list(range(k))


def test_a_row_that_is_apart_by_its_number_alone_is_seen() -> None:
    """Not by its place in a tile: rows hold the pairs here, and the pairs have to move on."""

    def run(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        plain, other = (compute("sum", inputs, params, how) for how in (PLAIN, "split_2"))
        return torch.where(torch.arange(len(plain)) >= 16, other, plain)

    kernel = Kernel("test", "sum", "second_tile", run, DTYPES)
    assert read_trees(kernel, "sum", Shape(300), torch.float32, {}, 33).equal is False
