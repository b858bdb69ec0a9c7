"""The grid as data and under each number that shades it."""

from __future__ import annotations

import pytest

from driftscope_service.demo import load
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.paired.kind import KIND
from driftscope_service.experiments.paired.page import grid_data, page_data
from driftscope_service.experiments.paired.shades import DEFAULT, SHADED
from driftscope_service.http.errors import InvalidField

STORED = load.recorded_report(KIND, KIND.recordings[0])
REPORT = KIND.read(STORED)


def test_every_cell_is_a_row_with_its_numbers() -> None:
    data = grid_data(paired_grid(REPORT.grid))
    rows = {row[:2]: dict(zip(data.columns, row, strict=True)) for row in map(tuple, data.rows)}
    assert len(rows) == len(data.rows) == len(STORED["grid"])
    for cell in STORED["grid"]:
        row = rows[cell["engine_dtype"], cell["trainer_dtype"]]
        numbers = {name: cell["comparison"].get(name) for name in SHADED}
        assert {name: row.get(name) for name in SHADED} == numbers


def test_any_number_that_shades_can_be_asked_for_and_no_other() -> None:
    assert page_data(REPORT, {}).keys() == page_data(REPORT, {"metric": DEFAULT}).keys()
    for name in SHADED:
        assert page_data(REPORT, {"metric": name})
    with pytest.raises(InvalidField, match="does not shade a grid") as raised:
        page_data(REPORT, {"metric": "tokens" * 100})
    assert raised.value.extras["remedy"].startswith("use one of ")
