"""The diagnoses of a paired report: one per cell, and the one that the report leads with.

In: the grid. Out: diagnosed cells, none of them for reports of before there was a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.gates import Judged
from driftscope_probes.paired.report import PairedReport
from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.experiments.paired.grid import GridCell, PairedGrid, paired_grid
from driftscope_service.numbers import diagnosis_words as words
from driftscope_service.numbers.diagnosis_words import read_diagnosis
from driftscope_service.pages.diagnosis import DiagnosisView, diagnosis_view


@dataclass(frozen=True, slots=True)
class DiagnosedCell:
    cell: GridCell
    diagnosis: Diagnosis

    @property
    def sentence(self) -> str:
        return f"{self.cell.label}: {self.diagnosis.sentence}"

    @property
    def side(self) -> str | None:
        """Which side carries the error, in a sentence; None where it was not measured."""
        measured = self.cell.report.which_side
        return None if measured is None else measured.sentence

    @property
    def line(self) -> str:
        """For the terminal: verdict, excess and the surest cause."""
        verdict = words.verdict_words(self.diagnosis.verdict)
        said = f"{self.cell.label}: {verdict}, {words.excess_words(self.diagnosis)}"
        first = self.diagnosis.causes[:1]
        return f"{said}; {words.named(first)}" if first else said

    @property
    def view(self) -> DiagnosisView:
        found = diagnosis_view(self.diagnosis)
        assert found is not None, "it is of a diagnosis"
        return found


def diagnosed_cells(grid: PairedGrid) -> tuple[DiagnosedCell, ...]:
    return _diagnosed(grid.cells)


def leading(grid: PairedGrid) -> DiagnosedCell | None:
    """The worst of the cells that a training run would use: a dtype that is mixed on purpose is
    not what the report is about."""
    cells = _diagnosed(grid.selected)
    return max(cells, key=lambda one: COMPARISON_RANK[one.diagnosis.verdict], default=None)


def report_sentence(report: PairedReport) -> str:
    """What the report says first, then what its grid says."""
    first = leading(paired_grid(report.grid))
    said = [*known(report), *([] if first is None else [first.sentence]), report.reading.sentence]
    return " ".join(said)


def known(report: PairedReport) -> list[str]:
    """What the probe knows of both sides before any comparison: it explains what follows."""
    parts = (report.weights, report.dropout)
    return [part.sentence for part in parts if part is not None]


def report_answer(report: PairedReport) -> dict[str, Any] | None:
    """Verdict, cause, side and remedy, as a list of reports has them; None without a diagnosis."""
    first = leading(paired_grid(report.grid))
    if first is None:
        return None
    view = first.view
    cause = view.cause
    return {
        **{"tone": view.tone, "word": view.word, "side": first.side},
        "cause": None if cause is None else cause.name,
        "remedy": None if cause is None else cause.remedy,
    }


def judged(report: PairedReport) -> list[Judged]:
    """What --fail-on is held against."""
    cells = paired_grid(report.grid).cells
    return [Judged(cell.comparison, cell.report.diagnosis, cell.label) for cell in cells]


def page_diagnoses(grid: PairedGrid) -> dict[str, Any]:
    """For the templates: by the keys of the cells, in the order of the grid."""
    return {"first": leading(grid), "of_cell": {one.cell.key: one for one in diagnosed_cells(grid)}}


def _diagnosed(cells: list[GridCell] | tuple[GridCell, ...]) -> tuple[DiagnosedCell, ...]:
    found = ((cell, read_diagnosis(cell.report.diagnosis)) for cell in cells)
    return tuple(DiagnosedCell(cell, one) for cell, one in found if one is not None)
