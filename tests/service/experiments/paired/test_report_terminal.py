"""The terminal report: whole output at two widths, and what happens when room is short.

WRITE_FIXTURES=1 writes the expected output anew; look at the difference before keeping it.
"""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.grid import COLUMNS
from driftscope_service.experiments.paired.terminal import print_report
from driftscope_service.numbers.metric_words import number, shared_exponent

FIXTURES = Path(__file__).parent / "fixtures"


def printed(report: dict[str, Any], width: int, *, location: str | None = None) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=True)
    print_report(PairedReport.read(report), console, location=location)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("width", [120, 80])
def test_whole_output(report: dict[str, Any], width: int) -> None:
    lines = printed(report, width, location="driftscope-reports/demo/report.html")
    expected = FIXTURES / f"terminal-{width}.txt"
    if os.environ.get("WRITE_FIXTURES") == "1":
        expected.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == expected.read_text(encoding="utf-8").splitlines()
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [30, 44, 60, 80, 100, 120, 200])
def test_no_number_is_ever_cut(report: dict[str, Any], width: int) -> None:
    lines = printed(report, width)
    text = "\n".join(lines)
    assert "…" not in text
    for cell in report["grid"]:
        comparison = cell["comparison"]
        assert number(comparison["abs_diff_mean"]) in text
        assert shared_exponent(*comparison["intervals"]["abs_diff_mean"]) in text
        assert number(comparison["kl_k3"]) in text


def test_columns_go_by_rank_as_room_shrinks(report: dict[str, Any]) -> None:
    shown = []
    for width in range(200, 20, -1):
        heading = next(line for line in printed(report, width) if line.startswith("engine"))
        shown.append({column.rank for column in COLUMNS if _last(column.heading) in heading})
    assert shown[0] == {column.rank for column in COLUMNS}
    assert shown[-1] == {0}
    for wider, narrower in zip(shown, shown[1:], strict=False):
        assert narrower <= wider
        assert not narrower - {0} or max(narrower) < min(wider - narrower, default=99)


def _last(heading: tuple[str, str]) -> str:
    """The line of a heading that stands at the bottom, beside `engine`."""
    return heading[1] or heading[0]


def test_the_default_grid_shows_every_column_at_120(report: dict[str, Any]) -> None:
    text = "\n".join(printed(report, 120))
    assert all(line in text for column in COLUMNS for line in column.heading)


def test_every_wide_mode_fits_120(make_report: Any) -> None:
    modes = ("autocast-bf16+fp32-head", "fp16")
    lines = printed(make_report(trainer_dtypes=modes), 120)
    assert max(map(cell_len, lines)) <= 120
    assert any("autocast-bf16" in line for line in lines)
    assert any("+fp32-head" in line for line in lines)


def test_undefined_numbers_say_why(make_report: Any) -> None:
    text = " ".join(printed(make_report(("bf16",), ("bf16",), lengths=(1,)), 120))
    assert "intervals.abs_diff_mean is undefined in every cell: resampling" in text
    assert "seq_logratio_std is undefined in every cell: an unbiased standard deviation" in text


def test_intervals_may_be_switched_off(make_report: Any) -> None:
    text = "\n".join(printed(make_report(("bf16",), ("bf16",), resamples=0), 120))
    assert "undefined" not in text


def test_markup_in_a_name_is_text(make_report: Any) -> None:
    lines = printed(make_report(model="[bold]x[/bold]"), 120)
    assert lines[0].startswith("[bold]x[/bold]: vllm 0.32.0 against")


def test_blocks_that_are_empty_are_left_out(report: dict[str, Any]) -> None:
    bare = copy.deepcopy(report) | {"headroom": None, "gradients": None, "notes": []}
    text = "\n".join(printed(bare, 120))
    assert all(title not in text for title in ("FP16 headroom", "Gradients", "Notes", "Report:"))


def test_a_long_location_stays_in_one_piece(report: dict[str, Any]) -> None:
    location = "/" + "deep/" * 40 + "report.html"
    assert f"Report: {location}" in printed(report, 80, location=location)


def test_gradients_that_overflow_are_named(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    changed["gradients"][0] |= {"norm": None, "nonfinite_values": 12}
    assert "  bf16 × bf16: norm undefined, 2.00% above fp32, 12 values not finite" in printed(
        changed, 120
    )
