"""An explanation in the terminal: the answer, the ops with their reasons, and what was verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from driftscope_probes.explain.report import Alignment, ExplainReport, Op, Swap, Way
from driftscope_probes.plural import counted
from driftscope_service.experiments.explain.words import (
    closer_sentence,
    first_words,
    growth_words,
    of_layers,
    reason_label,
    reason_tone,
    way_words,
)
from driftscope_service.numbers.metric_words import number, seconds, share
from driftscope_service.terminal.findings import print_settings

INDENT: Final = 2
#: Tensors that are named; --json has the rest.
MOST_NAMED: Final = 6
STYLES: Final = {"bad": "bold red", "watch": "bold yellow", "none": "bold", "good": "bold green"}


def print_report(report: ExplainReport, console: Console, *, location: str | None = None) -> None:
    """`location`: where the HTML report is; None leaves that line out."""
    _whole(console, report.sentence, "bold")
    closer = closer_sentence(report.ops)
    if closer:
        _whole(console, closer)
    if report.remedy:
        _whole(console, f"What to do: {report.remedy}")
    _print_alignment(report.alignment, console)
    if report.gap is not None:
        gap = report.gap
        console.print()
        _whole(
            console,
            f"Mean |Δ| {number(gap.abs_diff_mean)} nats, largest {number(gap.abs_diff_max)}, over "
            f"{counted(gap.tokens, 'token')}; {share(gap.equal_fraction)} bitwise equal.",
            "dim",
        )
    _print_ops(report.ops, console)
    _print_blocks(report, console)
    console.print()
    _whole(console, f"{counted(len(report.compared), 'op')} compared on equal inputs.", "dim")
    _whole(console, f"{seconds(report.timing['total_s'])} in all.", "dim")
    print_settings(report.lint, console)
    if location is not None:
        # One unbroken line: a path cut into pieces cannot be copied.
        _whole(console, f"Report: {location}")


def _print_alignment(alignment: Alignment, console: Console) -> None:
    """Only what is not the same."""
    failed = [f"{check.what}: {check.says}" for check in alignment.checks if not check.equal]
    weights = [
        f"{one.tensor}: {share(one.equal_fraction)} equal, largest difference "
        f"{number(one.max_abs)}; {one.says}"
        for one in alignment.weights[:MOST_NAMED]
    ]
    if len(alignment.weights) > MOST_NAMED:
        weights.append(f"and {counted(len(alignment.weights) - MOST_NAMED, 'tensor')} more")
    print_block(console, "Not the same on both sides", failed)
    print_block(console, "Weights that differ", weights)


def _print_ops(ops: Sequence[Op], console: Console) -> None:
    for rank, op in enumerate(ops, start=1):
        console.print()
        head = Text(f"{rank}. {op.label}", "bold")
        head.append(f", {of_layers(op.layers)}: ", "not bold")
        head.append(reason_label(op.reason), STYLES[reason_tone(op.reason)])
        console.print(head, soft_wrap=True)
        for line in _lines_of(op):
            _line(console, line)


def _lines_of(op: Op) -> list[str]:
    lines = [
        op.why,
        f"{share(1 - op.equal_fraction)} of {counted(op.elements, 'element')} differ, at most "
        f"{number(op.max_ulp)} ULP{_reverse(op)}",
        *_way("engine", op.engine),
        *_way("trainer", op.trainer),
        *(f"{tree.side} adds: {tree.text}" for tree in op.trees),
    ]
    if op.errors is not None:
        lines.append(
            "error against float64, in units of what rounding explains: engine "
            f"{number(op.errors.engine)}, trainer {number(op.errors.trainer)}"
        )
    if op.beyond_tolerance:
        lines.append(f"{share(op.beyond_tolerance)} differ by more than rounding explains")
    if op.first is not None:
        lines.append(f"first: {first_words(op.first)}")
    if op.backward is not None:
        back = op.backward
        lines.append(
            f"gradient: {share(back.equal_fraction)} equal to that of the engine's way, at most "
            f"{number(back.max_ulp)} ULP; {number(back.error)} from float64"
        )
    if op.swap is not None:
        lines.append(f"replaced alone: {swap_words(op.swap)}")
    return lines


def _reverse(op: Op) -> str:
    """Of the engine's op on the trainer's inputs."""
    equal = op.reverse_equal_fraction
    return "" if equal is None else f"; the other way round {share(1 - equal)}"


def _way(side: str, way: Way) -> list[str]:
    return [
        f"{side}: {way_words(way)}",
        *([] if way.code is None else [f"{' ' * len(side)}  {way.code}"]),
    ]


def swap_words(swap: Swap) -> str:
    before, after = number(swap.abs_diff_mean_before), number(swap.abs_diff_mean_after)
    return f"mean |Δ| {before} → {after} nats"


def _print_blocks(report: ExplainReport, console: Console) -> None:
    verified, growth = report.verified, growth_words(report.growth)
    whole = report.full_vocabulary
    print_block(console, "Verified", [] if verified is None else [verified.sentence])
    print_block(console, "Growth of the residual stream", [growth] if growth else [])
    print_block(console, "Whole vocabulary", [] if whole is None else [whole.sentence])
    print_block(console, "Not covered", report.uncovered)
    print_block(console, "Notes", report.notes)


def print_block(console: Console, title: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    console.print()
    _whole(console, title, "bold")
    for line in lines:
        _line(console, line)


def _line(console: Console, text: str) -> None:
    console.print(Padding(Text(text), (0, 0, 0, INDENT)))


def _whole(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style), soft_wrap=True)
