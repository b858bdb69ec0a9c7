"""Report of a determinism probe in the terminal: a table and replay lines."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from driftscope_probes.determinism.batch import ROWS_TOGETHER, Onset
from driftscope_probes.determinism.report import AxisReport, DeterminismReport
from driftscope_service.terminal.findings import print_settings

STYLES = {"equal": "green", "differs": "red", "not_repeatable": "magenta", "not_run": "dim"}
DIFFERING = ("differs", "not_repeatable")
#: What may wrap, so that a row fits into 80 characters.
WRAPPED = ("verdict", "from")
MOST_EXACT_ULPS = 100_000
HEADINGS = ("axis", "verdict", "from", "token =", "logp =", "unique", "max |Δ|", "ULP")


def print_determinism(report: DeterminismReport, console: Console) -> None:
    """A table per dtype and kernels; then the smallest differing cases and how to run them."""
    for subject in _subjects(report):
        axes = [axis for axis in report.axes if _subject(axis) == subject]
        dtype, kernels, engine = subject
        console.print(Text(f"{report.model['name']}, {engine} {dtype}, {kernels} kernels"))
        console.print(_table(axes))
    for axis in report.axes:
        if axis.verdict in DIFFERING:
            _print_case(axis, console)
    for axis in report.axes:
        if axis.verdict == "not_run":
            console.print(Text(f"{_name(axis)}: not run: {axis.reason}", "dim"), soft_wrap=True)
    for note in report.notes:
        console.print(Text(note, "dim"), soft_wrap=True)
    print_settings(report.lint, console)


def _subjects(report: DeterminismReport) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys(_subject(axis) for axis in report.axes))


def _subject(axis: AxisReport) -> tuple[str, str, str]:
    return axis.dtype, axis.kernels, axis.engine


def _name(axis: AxisReport) -> str:
    return f"{axis.axis} ({axis.dtype}, {axis.kernels})"


def _table(axes: list[AxisReport]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading not in WRAPPED, overflow="fold")
    for axis in axes:
        verdict = Text(axis.verdict.replace("_", " "), STYLES[axis.verdict])
        if axis.verdict == "not_run":
            table.add_row(axis.axis, verdict)
            continue
        table.add_row(
            axis.axis,
            verdict,
            "" if axis.onset is None else str(axis.onset.differs_from),
            share(axis.bitwise_equal_tokens),
            share(axis.bitwise_equal_logprobs),
            f"{axis.unique_outputs}",
            "" if axis.max_abs_diff is None else f"{axis.max_abs_diff:.2g}",
            "" if axis.max_ulps is None else ulps(axis.max_ulps),
        )
    return table


def onset_words(onset: Onset) -> str:
    value = f"{onset.setting} {onset.differs_from}"
    if onset.setting == ROWS_TOGETHER:
        equal = "" if onset.equal_up_to is None else f", equal up to {onset.equal_up_to}"
        return f"from {onset.differs_from} {'row' if onset.differs_from == 1 else 'rows'} on{equal}"
    if onset.equal_up_to is None:
        return f"at {value}"  # names have no order
    return f"from {value} on, equal up to {onset.equal_up_to}"


def ulps(value: int) -> str:
    """Exact while it is short."""
    return f"{value:,}" if value < MOST_EXACT_ULPS else f"{value:.1e}"


def share(value: float | None) -> str:
    """Never 100 % for less than all."""
    assert value is not None, "an axis that was run has counts"
    return "all" if value == 1.0 else f"{min(value, 0.999):.1%}"


def _print_case(axis: AxisReport, console: Console) -> None:
    assert axis.onset is not None, "an axis that differs has an onset"
    said = "" if axis.reason is None else f"; not repeatable: {axis.reason}"
    lines = [f"{_name(axis)} differs {onset_words(axis.onset)}{said}"]
    for first, what in (
        (axis.first_differing_token, "first differing token"),
        (axis.first_differing_logprob, "first differing log-probability"),
    ):
        if first is not None:
            lines.append(f"  {what}: {first.sequence}, token {first.token}, at {first.cell}")
    if axis.explanation is not None:
        lines.append(f"  {axis.explanation.sentence}")
        for op in axis.explanation.ops:
            equal = f"{100 * (1 - op.equal_fraction):.2g}% of the elements differ"
            lines.append(f"  {op.label}, {', '.join(op.sites)}: {equal}. {op.why}")
    if axis.replay:
        lines.append(f"  replay: {axis.replay}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
