"""Lists of a command: a table in a terminal, lines for a program. Nothing is ever cut.

In: names of columns and rows of text. Out, on standard output:
- a terminal that is wide enough: one table;
- a narrower one: a block per row with one `column  text` line each, since a cut identifier is of no
  use to whoever copies it;
- a pipe or a file: one line per row, cells with a tab between and no heading, so that `cut -f1` and
  `while read` work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_list(
    columns: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None
) -> None:
    """`rows`: a text for every column, "" where there is none."""
    console = console or Console()
    cells = [tuple(row) for row in rows]
    if not console.is_terminal:
        for row in cells:
            # Not by rich, which wraps at 80 columns where it knows no width.
            print("\t".join(map(_one_line, row)), file=console.file)
        return
    if _width(columns, cells) <= console.width:
        console.print(_table(columns, cells))
        return
    _print_blocks(columns, cells, console)


def _one_line(text: str) -> str:
    """A tab or a new line within a cell would make two of it."""
    return " ".join(text.split())


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ignore")
    for row in rows:
        # As Text: a name with [brackets] is not markup.
        table.add_row(*map(Text, row))
    return table


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns of the terminal that the table takes, frame included."""
    widest = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    # On both sides of each cell a space, and a line before each column and after the last.
    return sum(widest) + 3 * len(widest) + 1


def _print_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    label = max(map(cell_len, columns))
    for place, row in enumerate(rows):
        if place:
            print(file=console.file)
        for name, text in zip(columns, row, strict=True):
            if text:
                print(f"{name:<{label}}  {text}", file=console.file)
