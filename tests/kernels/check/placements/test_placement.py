"""Placements change where rows stand and lie, never what a row-wise function makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from driftscope_kernels.check.placements.axes import AXES, FULL_ROWS, axes, batch_sizes
from driftscope_kernels.check.placements.placement import (
    LAYOUTS,
    NEIGHBOURS,
    Batch,
    Placement,
    laid_out,
    run,
    thread_count,
)
from driftscope_kernels.registry import Kernel

ROWS, WIDTH = 40, 5


def _double(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
    return inputs["x"] * 2


ROW_WISE = Kernel("test", "double", "exact", _double, frozenset({torch.float32}))
BATCH = Batch({"x": torch.arange(ROWS * WIDTH, dtype=torch.float32).view(ROWS, WIDTH)}, {}, ("x",))


def _all_placements() -> list[Placement]:
    found = axes(ROWS, threads=2, layouts=True, constants=True)
    return [placement for placements in found.values() for placement in placements]


def test_every_placement_returns_its_rows_in_their_own_order() -> None:
    assert len(_all_placements()) > 100
    for placement in _all_placements():
        rows = BATCH.inputs["x"][list(placement.rows)]
        assert torch.equal(run(ROW_WISE, BATCH, placement), rows * 2), placement


def test_dictionaries_come_back() -> None:
    for placement in _all_placements():
        assert Placement.from_dict(placement.to_dict()) == placement


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 0},
        {"count": 3, "colour": 1},
        {"count": "3"},
        {"count": 3, "layout": "diagonal"},
        {"count": 3, "neighbours": "noisy"},
        {"count": 10**9},
        {"count": 3, "chunk": 0},
    ],
)
def test_a_bad_side_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="count|layout|neighbours"):
        Placement.from_dict(values)


@given(st.sampled_from(LAYOUTS), st.integers(1, 9), st.integers(1, 33))
@settings(max_examples=60)
def test_layouts_hold_the_same_values(layout: str, rows: int, width: int) -> None:
    values = torch.randn(rows, width)
    placed = laid_out(values, layout)
    assert torch.equal(placed, values)
    if layout.startswith("offset"):
        assert placed.storage_offset() == int(layout.removeprefix("offset_"))
    if layout == "column_major" and rows > 1 and width > 1:
        assert placed.stride() == (1, rows)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_constants_are_laid_out_and_keep_their_values(layout: str) -> None:
    seen: list[Tensor] = []

    def look(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        seen.append(inputs["weight"])
        return inputs["x"]

    weight = torch.randn(7, WIDTH)
    batch = Batch({**BATCH.inputs, "weight": weight}, {}, ("x",))
    kernel = Kernel("test", "double", "look", look, frozenset({torch.float32}))
    run(kernel, batch, Placement(3, constants=layout))
    assert torch.equal(seen[0], weight)
    moved = seen[0].stride() != weight.stride() or seen[0].storage_offset() > 0
    assert moved


@pytest.mark.parametrize("content", NEIGHBOURS)
def test_neighbours_replace_all_rows_but_one(content: str) -> None:
    seen: list[Tensor] = []

    def look(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> Tensor:
        seen.append(inputs["x"])
        return inputs["x"]

    kernel = Kernel("test", "double", "look", look, frozenset({torch.float32}))
    result = run(kernel, BATCH, Placement(9, neighbours=content, kept=3))
    assert torch.equal(result, BATCH.inputs["x"][3:4])
    assert torch.equal(seen[0][3], BATCH.inputs["x"][3])
    others = seen[0][[0, 1, 2, 4, 5, 6, 7, 8]]
    assert (others.isnan() | (others == others[0, 0])).all()


def test_sizes_are_dense_and_then_around_powers_of_two() -> None:
    sizes = batch_sizes(FULL_ROWS)
    assert sizes[:17] == tuple(range(1, 18))
    assert sizes[17:] == (31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)


def test_axes_apply_where_they_mean_something() -> None:
    plain = axes(33, threads=1, layouts=False)
    gradient = axes(33, threads=2, layouts=True, tokens=576)
    every = axes(33, threads=2, layouts=True, attention_length=100, paged=True)
    assert set(every) == set(AXES) - {"micro_batch"}
    assert set(every) - set(plain) == {
        *("layout", "threads", "query_chunk", "context", "page_order", "page_size", "padding")
    }
    assert set(gradient) == {"run_to_run", "layout", "threads", "micro_batch"}


def test_thread_count_is_restored() -> None:
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
