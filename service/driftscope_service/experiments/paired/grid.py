"""The grid of a paired report as a terminal table, and why a number in it has no value.

In: PairedGrid and a width. Out: a rich Table as wide as its numbers need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from driftscope_service.export.grid_columns import COLUMNS, Lines, fitting
from driftscope_service.export.paired_grid import GridCell, PairedGrid

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
