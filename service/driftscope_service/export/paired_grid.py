"""The grid of a paired report as readers see it: rows of engine dtypes, columns of trainer modes.

In: the report's `grid`. Out: cells with their place, their label and their shade.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from driftscope_probes.dtypes import parse_mode

#: Shades run over these means of |Δ|, the same in every report: from float32 rounding with another
#: order of summation (about 1e-6) to what no rounding explains (0.1, the CI limit of slime).
HEAT_LOW, HEAT_HIGH = 1e-6, 1e-1


@dataclass(frozen=True, slots=True)
class GridCell:
    engine_dtype: str
    trainer_dtype: str
    matched: bool  # both sides compute in the same format: what a training run would use
    report: Mapping[str, Any]  # the cell as it stands in the report

    @property
    def key(self) -> str:
        """Safe as an HTML id."""
        return f"{self.engine_dtype}--{self.trainer_dtype}".replace("+", "-")

    @property
    def label(self) -> str:
        return f"{self.engine_dtype} × {self.trainer_dtype}"

    @property
    def comparison(self) -> Mapping[str, Any]:
        comparison: Mapping[str, Any] = self.report["comparison"]
        return comparison

    @property
    def heat(self) -> float | None:
        """Shade from 0 to 1; None where there is no mean."""
        mean = self.comparison["abs_diff_mean"]
        if mean is None:
            return None
        if mean <= HEAT_LOW:
            return 0.0
        place = math.log(mean / HEAT_LOW) / math.log(HEAT_HIGH / HEAT_LOW)
        return round(min(1.0, place), 3)


@dataclass(frozen=True, slots=True)
class PairedGrid:
    cells: tuple[GridCell, ...]  # in the order of the report

    @property
    def engine_dtypes(self) -> list[str]:
        return list(dict.fromkeys(cell.engine_dtype for cell in self.cells))

    @property
    def trainer_dtypes(self) -> list[str]:
        return list(dict.fromkeys(cell.trainer_dtype for cell in self.cells))

    def at(self, engine_dtype: str, trainer_dtype: str) -> GridCell | None:
        """None where the grid has a hole."""
        place = (engine_dtype, trainer_dtype)
        found = (cell for cell in self.cells if (cell.engine_dtype, cell.trainer_dtype) == place)
        return next(found, None)

    @property
    def selected(self) -> list[GridCell]:
        """The cells that plots show at first: the matched ones, else all."""
        return [cell for cell in self.cells if cell.matched] or list(self.cells)


def paired_grid(grid: Sequence[Mapping[str, Any]]) -> PairedGrid:
    exact = any(cell["engine_dtype"] == cell["trainer_dtype"] for cell in grid)
    return PairedGrid(
        tuple(
            GridCell(
                engine_dtype=cell["engine_dtype"],
                trainer_dtype=cell["trainer_dtype"],
                matched=cell["engine_dtype"]
                == (cell["trainer_dtype"] if exact else parse_mode(cell["trainer_dtype"]).compute),
                report=cell,
            )
            for cell in grid
        )
    )
