"""A fingerprint in the terminal, a line per way to sum; of two, what differs, what it touches."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.text import Text

from driftscope_probes.fingerprint.difference import FingerprintDifference
from driftscope_probes.fingerprint.report import FingerprintReport, PathReading
from driftscope_probes.plural import counted
from driftscope_service.terminal.listing import print_list

UNKNOWN: Final = "–"
HEADINGS: Final = ("path", "dtype", "M×N×K", "threads", "sum", "aligned", "at once", "rounding")


def print_fingerprint(report: FingerprintReport, console: Console) -> None:
    print_list((*HEADINGS, "order"), map(_row, report.paths), console)
    for each in report.functions:
        line = f"{each.name} {each.dtype}: up to {each.largest_error_ulp:g} ULP off at {each.at:g}"
        console.print(Text(line, style="dim"))
    for note in report.notes:
        console.print(Text(note, style="dim"))
    count = counted(len(report.paths), "path")
    console.print(Text(f"Fingerprint {report.hash} of {report.device}: {count}.", style="bold"))


def _row(path: PathReading) -> tuple[str, ...]:
    width = _shown(path.accumulator_bits)
    return (
        path.path,
        path.dtype,
        "×".join(map(str, path.shape)),
        str(path.threads),
        width if width == UNKNOWN else f"{width} bits",
        _shown(path.fraction_bits),
        _shown(path.products_before_rounding),
        _shown(path.rounding),
        path.order or path.why or UNKNOWN,
    )


def _shown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def print_difference(found: FingerprintDifference, console: Console) -> None:
    console.print(Text(found.sentence, style="bold"), soft_wrap=True)
    for each in found.mechanisms:
        console.print(Text(f"{each.where}: {each.what}", style="bold"), soft_wrap=True)
        console.print(Text(f"  before: {each.before}"), soft_wrap=True)
        console.print(Text(f"  after:  {each.after}"), soft_wrap=True)
        for shape in each.shapes:
            console.print(Text(f"  at {shape}", style="dim"), soft_wrap=True)
        if each.touches:
            console.print(Text(f"  touches {each.touches}", style="dim"), soft_wrap=True)
    for side, names in (("before", found.only_before), ("after", found.only_after)):
        for name in names:
            console.print(Text(f"only {side}: {name}"), soft_wrap=True)
    for suspect in found.suspects:
        console.print(Text(suspect.sentence), soft_wrap=True)
    if found.environment:
        console.print(Text("The environments differ in:", style="bold"))
    for change in found.environment:
        line = f"  {change.kind} {change.name}: {_shown(change.before)} → {_shown(change.after)}"
        console.print(Text(line), soft_wrap=True)
