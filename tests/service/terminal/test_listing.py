"""Lists of a command: whatever the width, every identifier is there in one piece."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from driftscope_service.terminal.listing import print_list

COLUMNS = ("job", "kind", "note")
ROWS = (
    ("job_01JZQ8V5T3M7Y2K9D4W6X8B1CE", "paired", "80 % [sampling] 3/4 prompts"),
    ("job_01JZQ8V5T3M7Y2K9D4W6X8B1CF", "kernels", ""),
)


def printed(*, terminal: bool, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, height=25, color_system=None)
    print_list(COLUMNS, ROWS, console)
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 79, 80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_cell_is_cut_at_any_width(terminal: bool, width: int) -> None:
    shown = printed(terminal=terminal, width=width)
    for row in ROWS:
        for cell in row:
            assert cell in shown
    assert "…" not in shown


def test_a_wide_terminal_gets_one_table_a_narrow_one_a_block_per_row() -> None:
    # Three columns of 30, 7 and 27, a space on both sides of each and four lines between them.
    fits = 30 + 7 + 27 + 3 * 2 + 4
    assert all(len(line) == fits for line in printed(terminal=True, width=fits).splitlines())
    assert printed(terminal=True, width=fits - 1).splitlines() == [
        "job   job_01JZQ8V5T3M7Y2K9D4W6X8B1CE",
        "kind  paired",
        "note  80 % [sampling] 3/4 prompts",
        "",
        "job   job_01JZQ8V5T3M7Y2K9D4W6X8B1CF",
        "kind  kernels",
    ]


def test_a_program_gets_a_line_per_row_with_tabs_between() -> None:
    lines = printed(terminal=False, width=80).splitlines()
    assert [tuple(line.split("\t")) for line in lines] == list(ROWS)


def test_a_cell_stays_one_cell() -> None:
    out = io.StringIO()
    print_list(("a", "b"), [("one\ttwo\nthree", "x")], Console(file=out))
    assert out.getvalue() == "one two three\tx\n"
