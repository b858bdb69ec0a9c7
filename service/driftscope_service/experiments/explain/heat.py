"""Every op of every layer as a table of shades: the part of its elements that differs.

In: the ops compared on equal inputs. Out: rows in the order in which the ops run, a column a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_probes.explain.report import Compared, Op
from driftscope_service.experiments.explain.words import op_label
from driftscope_service.numbers.metric_words import number, share

#: Shades that the style sheet defines; 0 is kept for what is bitwise equal.
MOST_SHADE: Final = 10
LEAST_SHADE: Final = 2
#: Two shades a decade: one element of 10,000 is the lightest.
SHADES_PER_DECADE: Final = 2


@dataclass(frozen=True, slots=True)
class HeatCell:
    compared: Compared

    @property
    def differing(self) -> float | None:
        """Fraction of the elements; None where no token had equal inputs."""
        equal = self.compared.equal_fraction
        return None if equal is None else 1.0 - equal

    @property
    def shade(self) -> int | None:
        if self.differing is None:
            return None
        if self.differing <= 0:
            return 0
        shade = MOST_SHADE + SHADES_PER_DECADE * math.log10(self.differing)
        return max(LEAST_SHADE, min(MOST_SHADE, round(shade)))

    @property
    def text(self) -> str:
        """Percent in two characters, or three; nothing where all is equal."""
        if self.differing is None:
            return "?"
        percent = 100 * self.differing
        if percent <= 0:
            return ""
        if percent >= 1:
            # 100 stands for all of them.
            return str(min(round(percent), 99)) if percent < 100 else "100"
        return f"{percent:.1f}".removeprefix("0") if percent >= 0.1 else "<.1"

    @property
    def beyond(self) -> bool:
        return (self.compared.beyond_tolerance or 0.0) > 0

    @property
    def told(self) -> str:
        """All of it, where a pointer rests."""
        one = self.compared
        name = one.site if one.layer is None else f"layer {one.layer} {one.site}"
        if self.differing is None:
            return f"{name}: no token with inputs that are known to be equal"
        if self.differing <= 0:
            return f"{name}: bitwise equal"
        told = f"{name}: {share(self.differing)} differ, at most {number(one.max_ulp or 0)} ULP"
        if one.beyond_tolerance:
            told += f"; {share(one.beyond_tolerance)} by more than rounding explains"
        return told


@dataclass(frozen=True, slots=True)
class HeatRow:
    site: str
    label: str  # of the kind of op
    cells: tuple[HeatCell | None, ...]  # one per layer; None: the layer has no such op
    op: int | None  # index of the op that the site belongs to, if it differs


@dataclass(frozen=True, slots=True)
class Heat:
    layers: tuple[int, ...]
    rows: tuple[HeatRow, ...]
    outside: tuple[HeatRow, ...]  # of one cell each

    @property
    def cells(self) -> tuple[HeatCell, ...]:
        rows = (*self.rows, *self.outside)
        return tuple(cell for row in rows for cell in row.cells if cell is not None)

    @property
    def beyond(self) -> bool:
        """Whether any op differs by more than rounding explains."""
        return any(cell.beyond for cell in self.cells)

    @property
    def unknown(self) -> bool:
        """Whether some op could not be compared: of dumps, where no inputs were equal."""
        return any(cell.shade is None for cell in self.cells)


def heat_of(compared: Sequence[Compared], ops: Sequence[Op]) -> Heat:
    layers = tuple(sorted({one.layer for one in compared if one.layer is not None}))
    inside = {(one.site, one.layer): HeatCell(one) for one in compared if one.layer is not None}
    kinds = {one.site: one.op for one in compared if one.layer is not None}
    return Heat(
        layers,
        tuple(
            HeatRow(
                site,
                op_label(kind),
                tuple(inside.get((site, layer)) for layer in layers),
                _op_of(site, kind, ops),
            )
            for site, kind in kinds.items()
        ),
        tuple(
            HeatRow(one.site, op_label(one.op), (HeatCell(one),), _op_of(one.site, one.op, ops))
            for one in compared
            if one.layer is None
        ),
    )


def _op_of(site: str, kind: str, ops: Sequence[Op]) -> int | None:
    """The first one, where a site differs for several reasons."""
    found = (index for index, op in enumerate(ops) if op.op == kind and site in op.sites)
    return next(found, None)
