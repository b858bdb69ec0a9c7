"""A diagnosis by controls in the terminal: the answer and every step with its reason, or what to
run by hand in the user's own framework.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from driftscope_probes.diagnose.hand import HandControl, HandPlan
from driftscope_probes.diagnose.report import (
    ENDED,
    FINE,
    DiagnoseReport,
    FinalCause,
    Ranked,
    Step,
)
from driftscope_probes.diagnosis.controls.base import Control
from driftscope_service.numbers.metric_words import number, seconds
from driftscope_service.terminal.findings import print_settings

INDENT = 2
#: Of the causes that a line names.
MOST_NAMED = 3


def print_report(report: DiagnoseReport, console: Console) -> None:
    """The sentence first; then step by step, what was not run, and what is left."""
    console.print(Text(report.sentence, style="bold"), soft_wrap=True)
    if report.side:
        console.print(Text(report.side), soft_wrap=True)
    if report.remedy:
        console.print(Text(f"What to do: {report.remedy}"), soft_wrap=True)
    console.print()
    whose = "step's data" if report.recorded else "live pair's data"
    console.print(Text(f"By the {whose}: {_ranked(report.prior)}", style="dim"), soft_wrap=True)
    _print_steps(report.steps, console)
    if report.skipped:
        console.print(Text("Not run", style="bold"))
        for one in report.skipped:
            _line(console, f"{one.control}: {one.reason}")
    _print_causes(report.causes, console)
    for note in report.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
    print_settings(report.lint, console)
    took = seconds(report.timing["total_s"])
    console.print(Text(f"{took}; ended because {ENDED[report.ended]}.", style="dim"))


def print_plan(plan: HandPlan, again: str, console: Console) -> None:
    """`again`: the command line that takes an outcome, without it."""
    console.print(Text(plan.sentence, style="bold"), soft_wrap=True)
    console.print()
    _print_steps(plan.steps, console)
    console.print(Text(f"Causes: {_ranked(plan.belief)}"), soft_wrap=True)
    if plan.ended is not None:
        console.print(Text(f"No control is left to run: {ENDED[plan.ended]}."), soft_wrap=True)
        _print_causes(plan.causes, console)
        return
    console.print()
    if plan.verdict in FINE and not plan.steps:
        console.print(Text("Nothing has to be run. To look all the same:"), soft_wrap=True)
    console.print(Text("Controls for your own framework, best first", style="bold"))
    for rank, control in enumerate(plan.controls, start=1):
        _print_control(rank, control, console)
    first = plan.controls[0].name
    console.print()
    console.print(Text(f"Then: {again} --control {first}=clean, or =dirty"), soft_wrap=True)


def print_controls(controls: Sequence[Control], console: Console) -> None:
    for control in controls:
        console.print(Text(control.name, style="bold"))
        _line(console, f"{control.title}. {control.separates}")


def _print_steps(steps: Sequence[Step], console: Console) -> None:
    for index, step in enumerate(steps, start=1):
        console.print(Text(f"{index}. {step.reason}", style="bold"), soft_wrap=True)
        name = f"{step.control}: " if step.what is None else ""
        _line(console, f"{name}{step.sentence}")
    if steps:
        console.print()


def _print_control(rank: int, control: HandControl, console: Console) -> None:
    console.print(Text(f"{rank}. {control.name}: {control.title}", style="bold"), soft_wrap=True)
    _line(console, control.splits)
    for framework, option in control.how.items():
        _line(console, f"{framework}: {option}")
    if control.read:
        _line(console, control.read)


def _print_causes(causes: Sequence[FinalCause], console: Console) -> None:
    if not causes:
        return
    console.print(Text("What is left", style="bold"))
    for cause in causes:
        _line(console, f"{cause.confidence:.2f} {cause.name}: {cause.title}")


def _ranked(entries: Sequence[Ranked]) -> str:
    shown = (f"{one.cause} {number(one.probability)}" for one in entries[:MOST_NAMED])
    return ", ".join(shown)


def _line(console: Console, text: str) -> None:
    console.print(Padding(Text(text), (0, 0, 0, INDENT)))
