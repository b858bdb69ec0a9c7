"""An explanation from outside in the terminal: what was changed, what it did, what is unknown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from driftscope_probes.explain.server.report import Best, ServerReport, Tried
from driftscope_probes.plural import counted
from driftscope_service.experiments.explain.reading import AnyReport
from driftscope_service.experiments.explain.terminal import INDENT, print_block, print_report
from driftscope_service.numbers.metric_words import number, seconds, share
from driftscope_service.terminal.findings import print_settings


def print_any(report: AnyReport, console: Console, *, location: str | None = None) -> None:
    """`location`: where the HTML report is; None leaves that line out."""
    if isinstance(report, ServerReport):
        print_server(report, console, location=location)
    else:
        print_report(report, console, location=location)


def print_server(report: ServerReport, console: Console, *, location: str | None = None) -> None:
    console.print(Text(report.sentence, "bold"), soft_wrap=True)
    if report.remedy:
        console.print(Text(f"What to do: {report.remedy}"), soft_wrap=True)
    checks = [f"{one.what}: {one.says}" for one in report.checks if not one.equal]
    print_block(console, "Not the same on both sides", checks)
    if report.gap is not None:
        gap = report.gap
        console.print()
        line = (
            f"Mean |Δ| {number(gap.abs_diff_mean)} nats, largest {number(gap.abs_diff_max)}, over "
            f"{counted(gap.tokens, 'token')}; {share(gap.equal_fraction)} bitwise equal."
        )
        console.print(Text(line, "dim"), soft_wrap=True)
    print_block(console, "What brings the gap down most", _best(report.best))
    print_block(console, "Settings of the server", changes(report.server_settings))
    print_block(console, "Changes of the trainer", changes(report.trainer_variants))
    if report.truncation is not None:
        print_block(console, "Where they part", [report.truncation.sentence])
    not_tried = [f"{one.name}: {one.reason}" for one in report.not_tried]
    print_block(console, "Not tried", not_tried)
    if report.unknown:
        console.print()
        console.print(Text("What cannot be known from outside", "bold"))
        for one in report.unknown:
            text = f"{one.what}: {one.why}. What would tell: {one.door}"
            console.print(Padding(Text(text), (0, 0, 0, INDENT)))
    print_block(console, "Notes", report.notes)
    console.print()
    sent = counted(report.requests, "request")
    took = seconds(report.timing["total_s"])
    console.print(Text(f"{sent} to the server; {took} in all.", "dim"))
    print_settings((report.model_extra or {}).get("lint"), console)
    if location is not None:
        console.print(Text(f"Report: {location}"), soft_wrap=True)


def _best(best: Best | None) -> list[str]:
    if best is None or not best.changes:
        return []
    before, after = number(best.abs_diff_mean_before), number(best.abs_diff_mean_after)
    floor = ", at the floor" if best.at_floor else ""
    told = [f"{'; '.join(best.says)}: mean |Δ| {before} → {after} nats{floor}"]
    if best.as_good:
        told.append(f"as good, so that nothing tells which it is: {'; '.join(best.as_good)}")
    return told


def changes(tried: Sequence[Tried]) -> list[str]:
    return [
        f"{one.says}: mean |Δ| {number(one.abs_diff_mean_before)} → "
        f"{number(one.abs_diff_mean_after)} nats; {one.effect} it ({one.kind}, z "
        f"{number(one.z)}, needed {number(one.needed)})"
        for one in tried
    ]
