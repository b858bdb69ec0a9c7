"""Places, matches and shades of the cells of a grid."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_probes.paired.report import Cell
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.paired.shades import DEFAULT, HEAT_HIGH, HEAT_LOW, grid_view


def cell(engine: str, trainer: str, mean: float | None = 0.01) -> Cell:
    fields: dict[str, Any] = {
        "engine_dtype": engine,
        "trainer_dtype": trainer,
        "comparison": {"abs_diff_mean": mean},
    }
    return Cell.model_construct(**fields)


def matched(*cells: tuple[str, str]) -> list[str]:
    grid = paired_grid([cell(*names) for names in cells])
    return [found.label for found in grid.cells if found.matched]


def test_plain_modes_match_the_engine_dtype_of_the_same_name() -> None:
    cells = (("bf16", "bf16"), ("bf16", "autocast-bf16"), ("fp16", "bf16"), ("fp16", "fp16"))
    assert matched(*cells) == ["bf16 × bf16", "fp16 × fp16"]


def test_without_plain_modes_the_computing_dtype_decides() -> None:
    cells = (("bf16", "autocast-bf16+fp32-head"), ("fp16", "autocast-bf16+fp32-head"))
    assert matched(*cells) == ["bf16 × autocast-bf16+fp32-head"]


def test_without_any_match_all_cells_are_selected() -> None:
    grid = paired_grid([cell("bf16", "fp32"), cell("fp16", "fp32")])
    assert grid.selected == list(grid.cells)


def test_places_of_a_grid_with_a_hole() -> None:
    grid = paired_grid([cell("bf16", "bf16"), cell("fp16", "fp32")])
    assert (grid.engine_dtypes, grid.trainer_dtypes) == (["bf16", "fp16"], ["bf16", "fp32"])
    assert grid.at("bf16", "fp32") is None
    assert grid.at("fp16", "fp32") is grid.cells[1]


def test_keys_are_safe_and_distinct() -> None:
    modes = ("bf16", "bf16+fp32-head", "autocast-bf16")
    keys = [found.key for found in paired_grid([cell("bf16", mode) for mode in modes]).cells]
    assert len(set(keys)) == 3
    assert all(key.replace("-", "").isalnum() for key in keys)


@pytest.mark.parametrize(
    ("mean", "shade"),
    [(None, None), (0.0, 0), (HEAT_LOW, 0), (1e-3, 6), (HEAT_HIGH, 10), (20.0, 10)],
)
def test_shade(mean: float | None, shade: int | None) -> None:
    grid = paired_grid([cell("bf16", "bf16", mean)])
    assert grid_view(grid, DEFAULT).cells[0].shade == shade
