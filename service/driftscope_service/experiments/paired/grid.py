"""The grid of a paired report: its cells, and the table in the terminal that fits the width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from driftscope_probes.dtypes import parse_mode
from driftscope_probes.paired.report import Cell
from driftscope_service.numbers.metric_words import SUMMARY, shared_exponent, written


@dataclass(frozen=True, slots=True)
class GridCell:
    report: Cell
    matched: bool  # both sides compute in the same format: what a training run would use

    @property
    def engine_dtype(self) -> str:
        return self.report.engine_dtype

    @property
    def trainer_dtype(self) -> str:
        return self.report.trainer_dtype

    @property
    def key(self) -> str:
        """Safe as an HTML id."""
        return f"{self.engine_dtype}--{self.trainer_dtype}".replace("+", "-")

    @property
    def label(self) -> str:
        return f"{self.engine_dtype} × {self.trainer_dtype}"

    @property
    def comparison(self) -> Mapping[str, Any]:
        return self.report.comparison


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
        wanted = (engine_dtype, trainer_dtype)
        cells = (cell for cell in self.cells if (cell.engine_dtype, cell.trainer_dtype) == wanted)
        return next(cells, None)

    @property
    def selected(self) -> list[GridCell]:
        """The cells that plots show at first: the matched ones, else all."""
        return [cell for cell in self.cells if cell.matched] or list(self.cells)


def paired_grid(grid: Sequence[Cell]) -> PairedGrid:
    exact = any(cell.engine_dtype == cell.trainer_dtype for cell in grid)

    def computes(trainer_dtype: str) -> str:
        return trainer_dtype if exact else parse_mode(trainer_dtype).compute

    return PairedGrid(
        tuple(GridCell(cell, cell.engine_dtype == computes(cell.trainer_dtype)) for cell in grid)
    )


Comparison = Mapping[str, Any]
Lines = tuple[str, str]
NO_VALUE = "–"  # the reasons are below the table
MEAN = "abs_diff_mean"
_ROWS = {row.name: row for row in SUMMARY}


@dataclass(frozen=True, slots=True)
class Column:
    heading: Lines
    names: tuple[str, ...]  # of the numbers it shows, the keys of `undefined`'s reasons
    lines: Callable[[Comparison], Lines]
    rank: int  # the highest rank is dropped first; 0 always stays


def _column_text(comparison: Comparison, name: str) -> str:
    value = comparison[name]
    return NO_VALUE if value is None else written(_ROWS[name], value)


def _heading(name: str) -> str:
    return _ROWS[name].narrow or _ROWS[name].short


def _column(name: str, below: str | None = None, *, rank: int) -> Column:
    if below is None:
        return Column((_heading(name), ""), (name,), lambda c: (_column_text(c, name), ""), rank)
    return Column(
        (_heading(name), _heading(below)),
        (name, below),
        lambda comparison: (_column_text(comparison, name), _column_text(comparison, below)),
        rank,
    )


def _mean_with_interval(comparison: Comparison) -> Lines:
    bounds = comparison["intervals"].get(MEAN)
    return _column_text(comparison, MEAN), shared_exponent(*bounds) if bounds else ""


COLUMNS = (
    _column("tokens", rank=3),
    Column(
        (_heading(MEAN), "95% interval"), (MEAN, f"intervals.{MEAN}"), _mean_with_interval, rank=0
    ),
    _column("abs_diff_p99", "abs_diff_max", rank=1),
    _column("kl_k3", rank=0),
    _column("prob_pearson", rank=5),
    _column("ratio_share_outside_0p5_2", "ratio_share_outside_0p9_1p1", rank=2),
    _column("seq_logratio_std", rank=6),
    _column("ess_ratio_token", rank=7),
    _column("bitwise_equal_fraction", "first_differing_token", rank=4),
)


def fitting(widths: Sequence[int], room: int, gap: int) -> list[int]:
    """Indices in COLUMNS of those that fit into `room` characters, each with a gap before it."""
    shown = list(range(len(COLUMNS)))
    while sum(widths[index] + gap for index in shown) > room:
        index = max(shown, key=lambda candidate: COLUMNS[candidate].rank)
        if COLUMNS[index].rank == 0:
            break
        shown.remove(index)
    return shown


ENGINE, TRAINER = ("engine", ""), ("trainer", "")
#: One space of padding and one for the rule between columns, which SIMPLE_HEAD leaves blank.
GAP = 2


@dataclass(frozen=True, slots=True)
class GridTable:
    table: Table  # wider than the room only where even the core columns do not fit
    undefined: tuple[str, ...]  # one sentence per reason


def grid_table(grid: PairedGrid, room: int) -> GridTable:
    names = [(_engine(grid, cell), _trainer(cell)) for cell in grid.cells]
    values = [[column.lines(cell.comparison) for column in COLUMNS] for cell in grid.cells]
    engine = _width([ENGINE, *(engine for engine, _ in names)])
    trainer = _width([TRAINER, *(trainer for _, trainer in names)])
    columns = zip((column.heading for column in COLUMNS), *values, strict=True)
    widths = [_width(lines) for lines in columns]
    fixed = engine + GAP + trainer
    places = fitting(widths, room - fixed, GAP)
    table = _empty([engine, trainer, *(widths[place] for place in places)], places)
    for cell, (engine_lines, trainer_lines), lines in zip(grid.cells, names, values, strict=True):
        texts = [_text(lines[place], cell) for place in places]
        first = _text(engine_lines, cell), _text(trainer_lines, cell)
        table.add_row(*first, *texts, end_section=_ends_group(grid, cell))
    return GridTable(table, tuple(_undefined(grid, places)))


def _empty(widths: Sequence[int], places: Sequence[int]) -> Table:
    # With its own width, so that rich never shrinks a column: a cut number is a wrong number.
    width = sum(widths) + GAP * (len(widths) - 1)
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1), width=width
    )
    headings = [ENGINE, TRAINER, *(COLUMNS[place].heading for place in places)]
    for index, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        text = "\n".join(heading).rstrip()
        table.add_column(text, justify="left" if index < 2 else "right", width=width, no_wrap=True)
    return table


def _engine(grid: PairedGrid, cell: GridCell) -> Lines:
    """Only on the first row of its group."""
    first = next(other for other in grid.cells if other.engine_dtype == cell.engine_dtype)
    return (cell.engine_dtype if cell is first else "", "")


def _trainer(cell: GridCell) -> Lines:
    mode, plus, head = cell.trainer_dtype.partition("+")
    return mode, plus + head


def _ends_group(grid: PairedGrid, cell: GridCell) -> bool:
    following = grid.cells[grid.cells.index(cell) + 1 :]
    return bool(following) and following[0].engine_dtype != cell.engine_dtype


def _text(lines: Lines, cell: GridCell) -> Text:
    text = Text(lines[0], style="bold" if cell.matched else "")
    if lines[1]:
        text.append(f"\n{lines[1]}", style="not bold dim")
    return text


def _width(lines: Sequence[Lines]) -> int:
    return max(cell_len(line) for pair in lines for line in pair)


def _undefined(grid: PairedGrid, places: Sequence[int]) -> Iterator[str]:
    """`std S – in bf16 × fp32: reason`, one line per number and reason."""
    for place in places:
        for name in COLUMNS[place].names:
            cells_by_reason: dict[str, list[str]] = {}
            for cell in grid.cells:
                reason = cell.comparison["undefined"].get(name)
                if reason is not None:
                    cells_by_reason.setdefault(reason, []).append(cell.label)
            for reason, cells in cells_by_reason.items():
                where = "every cell" if len(cells) == len(grid.cells) else ", ".join(cells)
                yield f"{name} is undefined in {where}: {reason}."
