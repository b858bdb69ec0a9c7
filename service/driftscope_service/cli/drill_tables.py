"""A drill as it is shown: in the terminal, and as the page docs/drill.md.

In: a report and a rich Console, or the day. Out: tables, or text. One row per cause: how often it
was named, from which severity on, and for what it was taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.diagnosis.drill.report import DrillReport
from driftscope_probes.diagnosis.drill.request import DEFAULT_RUNS
from driftscope_probes.diagnosis.drill.score import (
    CALIBRATION_ERROR_AT_MOST,
    FALSE_ALARMS_AT_MOST,
    SEEN_AT,
    TOP1_AT_LEAST,
    TOP3_AT_LEAST,
    UNSEEN_AT_LEAST,
    CauseScore,
    Score,
)
from driftscope_probes.plural import counted

Matrix = Mapping[str, Mapping[str, int]]

NOT_RUN = "–"
#: Wrong answers that fit into a row; the JSON has all.
MOST_TAKEN_FOR = 3
PACKAGES = ("driftscope", "torch", "transformers", "numpy")
INTRODUCTION = (
    "Made by the command below; not edited by hand. Each case is a fault that was put into a real "
    "pair of engine and trainer, where it happens in life, and pushed as a trainer's file. Each "
    "cause comes about in two independent ways, scored apart below. Every "
    "third case whose cause the log-probabilities themselves show, and every third healthy pair, "
    "is pushed with the required tensors, the ids and the dtypes alone."
)
HEADS = ("cause", "cases", "first", "of three", "seen from", "left out", "taken for")


def print_drill(report: DrillReport, console: Console) -> None:
    score = report.score
    pairs = f"{counted(score.cases, 'fault')} and {counted(score.healthy, 'healthy pair')}"
    title = f"{pairs} in {report.seconds:.0f} s"
    console.print(Text(title, "bold"))
    console.print()
    figures = _table(("figure", "value", "asked"))
    for figure in figure_rows(score):
        figures.add_row(*map(Text, figure))
    console.print(figures)
    table = _table(HEADS)
    for row in cause_rows(score):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(_said("injected", score.confusion))
    if report.courses:
        console.print(_said("course of a run", report.course_score.by_cause))
    console.print(Text("\n".join(_groups(score)), "dim"))
    for missed in score.shortfalls():
        console.print(Text(f"Missed: {missed}.", "bold red"))


def markdown(report: DrillReport, day: date) -> str:
    """The page."""
    score = report.score
    parts = [
        "# The drill: how good the diagnosis is",
        INTRODUCTION,
        "\n".join(_facts(report, day)),
        "## Figures",
        "\n".join(_markdown_table(("figure", "value", "asked"), figure_rows(score))),
        "\n".join(f"- missed: {missed}" for missed in score.shortfalls()),
        "## By cause",
        f"*first*, *of three*: part of the cases in which the right cause stood there. *seen "
        f"from*: the lowest severity (0 hardly visible, 1 gross) from which on at least "
        f"{SEEN_AT:.0%} are named first. *left out*: part that is called unexplained when this "
        "cause's own detector is removed.",
        "\n".join(_markdown_table(HEADS, cause_rows(score))),
        "## What was said of what",
        "\n".join(_markdown_confusion(score)),
        *_courses(report),
        "## By way, model and dtypes",
        "\n".join(f"- {line}" for line in _groups(score)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def command(report: DrillReport) -> str:
    """That asks for the same."""
    request = report.request
    if request.again is not None:
        made = "python -m driftscope_probes.diagnosis.drill.dump CASES"
        return f"{made} && driftscope drill --again CASES"
    words = ["driftscope drill", f"--cases {request.cases}"]
    words += [f"--runs {request.runs}"] if request.runs != DEFAULT_RUNS else []
    words += [f"--causes {','.join(request.causes)}"] if request.causes else []
    words += [f"--way {request.way}"] if request.way != "both" else []
    words += [f"--models {','.join(request.models)}"] if request.models else []
    words += [f"--seed {request.seed}"] if request.seed else []
    return " ".join(words)


def figure_rows(score: Score) -> Iterator[tuple[str, str, str]]:
    yield "right cause first", _part(score.top1), f"at least {TOP1_AT_LEAST:.0%}"
    yield "the right one, or one that looks alike in one step, first", _part(score.top1_alike), ""
    yield "right cause among the first three", _part(score.top3), f"at least {TOP3_AT_LEAST:.0%}"
    alarms = score.healthy_false_alarms
    yield "healthy pairs called a fault", _part(alarms), f"at most {FALSE_ALARMS_AT_MOST:.0%}"
    unseen = score.unseen_named_unexplained
    yield "left-out causes unexplained", _part(unseen), f"at least {UNSEEN_AT_LEAST:.0%}"
    error = score.calibration_error
    shown = NOT_RUN if error is None else f"{error:.3f}"
    yield "calibration error", shown, f"at most {CALIBRATION_ERROR_AT_MOST:.2f}"


def cause_rows(score: Score) -> Iterator[tuple[str, ...]]:
    for name, own in score.by_cause.items():
        seen = NOT_RUN if own.seen_from is None else f"{own.seen_from:g}"
        yield (
            name,
            str(own.cases),
            _part(own.top1),
            _part(own.top3),
            seen,
            _part(own.unseen_named_unexplained),
            _taken_for(own),
        )


def _taken_for(own: CauseScore) -> str:
    shown = list(own.taken_for.items())[:MOST_TAKEN_FOR]
    return ", ".join(f"{name} {count}" for name, count in shown)


def _groups(score: Score) -> Iterator[str]:
    for name, group in [*score.by_way.items(), *score.by_setting.items()]:
        title = f"way {name}" if name in score.by_way else name
        yield f"{title}: right cause first in {_part(group.top1)} of {group.cases}"


def _answers(score: Score) -> list[str]:
    """Columns: most frequent first."""
    counts: dict[str, int] = {}
    for row in score.confusion.values():
        for name, count in row.items():
            counts[name] = counts.get(name, 0) + count
    return sorted(counts, key=lambda name: (-counts[name], name))


def _said(head: str, rows: Matrix) -> Table:
    """One line per injected cause, its answers as text: a square of 40 fits no terminal."""
    table = _table((head, "answered"))
    for injected, row in rows.items():
        table.add_row(Text(injected), Text(_counts(row)))
    return table


def _counts(row: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.items())


def _courses(report: DrillReport) -> Iterator[str]:
    """Of the page: runs diagnosed over their steps."""
    if not report.courses:
        return
    score = report.course_score
    yield "## Over the steps of a run"
    yield (
        f"{counted(score.runs, 'run')} with a fault, right cause named in {_part(score.top1)}; "
        f"{score.healthy} healthy runs, called a fault in {_part(score.healthy_false_alarms)}."
    )
    rows = ((name, _counts(row)) for name, row in score.by_cause.items())
    yield "\n".join(_markdown_table(("course", "named"), rows))


def _markdown_confusion(score: Score) -> Iterable[str]:
    """Columns are numbered, the names stand below: 40 names fit no line either."""
    answers = _answers(score)
    heads = ["injected", *(str(index + 1) for index in range(len(answers)))]
    rows = [
        [injected, *(str(row.get(name, "")) for name in answers)]
        for injected, row in score.confusion.items()
    ]
    yield from _markdown_table(heads, rows)
    yield ""
    yield "Answers: " + ", ".join(f"{index + 1} {name}" for index, name in enumerate(answers)) + "."


def _facts(report: DrillReport, day: date) -> Iterable[str]:
    environment = report.environment
    hardware, packages = environment["hardware"], environment["packages"]
    shown = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    yield f"- command: `{command(report)} --markdown docs/drill.md`"
    yield f"- date: {day.isoformat()}; {report.seconds:.0f} s"
    yield f"- CPU: {hardware['cpu']}, {hardware['cores']} cores; {environment['platform']}"
    yield f"- versions: Python {environment['python']}, {shown}"
    yield f"- cases: {report.score.cases} with a fault, {report.score.healthy} healthy"


def _markdown_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    names = list(heads)
    yield f"| {' | '.join(names)} |"
    yield f"| {' | '.join(['---'] * len(names))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _part(value: float | None) -> str:
    return NOT_RUN if value is None else f"{value:.1%}"


def _table(heads: Iterable[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table
