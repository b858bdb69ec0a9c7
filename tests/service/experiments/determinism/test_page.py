"""Axes as tables: every axis of a report a row, every verdict a cell of one matrix."""

from __future__ import annotations

import itertools

from driftscope_service.demo import load
from driftscope_service.experiments.determinism.kind import KIND
from driftscope_service.experiments.determinism.page import (
    axes_data,
    axis_matrices,
    axis_verdicts_data,
)
from driftscope_service.experiments.determinism.store import AxisVerdict


def test_every_axis_of_a_report_is_a_row_with_its_onset() -> None:
    report = load.recorded_report(KIND, KIND.recordings[0])
    axes, data = report["axes"], axes_data(KIND.read(report).axes)
    rows = {row[:4]: row for row in map(tuple, data.rows)}
    assert len(rows) == len(axes) == len(data.rows)
    for axis in axes:
        subject = tuple(axis[name] for name in data.columns[:4])
        row = dict(zip(data.columns, rows[subject], strict=True))
        assert row["verdict"] == axis["verdict"]
        assert (row["differs_from"] is None) == (axis["onset"] is None)
        assert row["replay"] == axis["replay"]


def test_every_verdict_is_a_cell_of_the_matrix_of_its_model() -> None:
    subjects = itertools.product(("b", "a"), ("vllm", "hf"), ("threads", "position"), ("bf16",))
    verdicts = [AxisVerdict(*each, "stock", "equal", 1, 1, 0, "report_1") for each in subjects]
    matrices = axis_matrices(verdicts)
    assert [matrix.model for matrix in matrices] == ["b", "a"]  # as given
    cells = [cell for matrix in matrices for row in matrix.rows.values() for cell in row.values()]
    assert sorted(cells, key=verdicts.index) == verdicts
    for matrix in matrices:
        assert list(matrix.rows) == ["position", "threads"]
        assert matrix.columns == [("hf", "bf16", "stock"), ("vllm", "bf16", "stock")]
    assert len(axis_verdicts_data(verdicts).rows) == len(verdicts)
    assert not axis_matrices([]) and not axis_verdicts_data([]).rows
