"""Explanation of a running server in the terminal: what was changed, what it did, what is unknown.

In: a ServerReport and a rich Console. Out: text, whose paths and addresses are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.explain.report import VERDICTS, Verdict
from driftscope_probes.explain.server.report import ServerReport, Tried

STYLES: Final[dict[Verdict, str]] = {
    "equal": "bold green",
    "rounding": "bold green",
    "fault": "bold red",
    "unexplained": "bold yellow",
    "not_comparable": "bold magenta",
}
#: Changes of the trainer that are shown; --json has all.
MOST_SHOWN: Final = 12


def print_server_report(report: ServerReport, console: Console) -> None:
    """Verdict first, then the tables, then what log-probabilities cannot tell."""
    console.print(Text(VERDICTS[report.verdict], STYLES[report.verdict]))
    console.print(Text(report.sentence), soft_wrap=True)
    if report.remedy:
        console.print(Text(f"What to do: {report.remedy}"), soft_wrap=True)
    _checks(report, console)
    if report.server_settings:
        console.print(_settings(report.server_settings))
    if report.trainer_variants:
        console.print(_variants(report.trainer_variants))
    if report.truncation is not None:
        console.print(Text(report.truncation.sentence), soft_wrap=True)
        for one in report.truncation.coincides:
            line = f"  {one.what}: {one.tokens} (chance {one.chance:.1%})"
            console.print(Text(line), soft_wrap=True)
    for left in report.not_tried:
        console.print(Text(f"{left.name}: not tried: {left.reason}", "dim"), soft_wrap=True)
    for note in report.notes:
        console.print(Text(note, "dim"), soft_wrap=True)
    console.print(Text("What log-probabilities alone cannot tell:"))
    for unknown in report.unknown:
        console.print(Text(f"  {unknown.what}: {unknown.why}", "dim"), soft_wrap=True)
        console.print(Text(f"    {unknown.door}", "dim"), soft_wrap=True)


def _checks(report: ServerReport, console: Console) -> None:
    for check in report.checks:
        style = "dim" if check.equal else "red"
        console.print(Text(f"{check.what}: {check.says}", style), soft_wrap=True)
    if report.precision is not None:
        console.print(Text(report.precision.sentence, "dim"), soft_wrap=True)
    if report.floors is not None:
        equal = f"{report.floors.server_itself_equal:.0%}"
        line = f"Two identical requests: {equal} of the server's values are equal."
        console.print(Text(line, "dim"), soft_wrap=True)


def _settings(settings: Sequence[Tried]) -> Table:
    table = _table(("of a request", "mean |Δ|", "with it", "server against itself"))
    for one in settings:
        own = "equal bits"
        if one.own_equal_fraction != 1.0:
            own = f"sigma {one.own_sigma:.2g}"
        table.add_row(
            one.name,
            f"{one.abs_diff_mean_before:.3g}",
            f"{one.abs_diff_mean_after:.3g}",
            Text(own, "red" if one.consistent is False else ""),
        )
    return table


def _variants(variants: Sequence[Tried]) -> Table:
    table = _table(("of the trainer", "mean |Δ|", "with it", "effect"))
    shown = sorted(variants, key=lambda one: one.abs_diff_mean_after)[:MOST_SHOWN]
    for one in shown:
        table.add_row(
            one.name,
            f"{one.abs_diff_mean_before:.3g}",
            f"{one.abs_diff_mean_after:.3g}",
            Text(one.effect, "bold" if one.effect == "lowers" else "dim"),
        )
    return table


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
