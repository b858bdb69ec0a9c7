"""Findings of a lint in the terminal, by severity: where, value, why, what to change, source.

In: a report and a rich Console. Out: text, whose paths and addresses are never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from driftscope_probes.lint.base import SEVERITIES, Finding, Severity
from driftscope_probes.lint.report import LintReport
from driftscope_probes.plural import counted

TONES: Final[Mapping[Severity, str]] = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "bold",
}
INDENT: Final = 2
#: Files that are named; --json has the rest.
MOST_NAMED: Final = 6


def print_report(report: LintReport, console: Console) -> None:
    console.print(Text(summary(report), "bold"))
    console.print(Text(read_sentence(report), "dim"))
    print_findings(report.findings, console)


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Most severe first, as they are."""
    for severity, group in groupby(findings, key=lambda finding: finding.severity):
        for finding in group:
            console.print()
            head = Text(severity, TONES[severity])
            head.append(f"  {finding.rule}", "not bold default")
            console.print(head)
            # One unbroken line: a path cut into pieces cannot be copied.
            console.print(Text(f"  {place(finding)}"), soft_wrap=True)
            for label, text in (("", finding.why), ("Change", finding.remedy)):
                told = Text.assemble((f"{label}: ", "bold"), text) if label else Text(text)
                console.print(Padding(told, (0, 0, 0, INDENT)))
            console.print(Text(f"  Source: {finding.source}", "dim"), soft_wrap=True)


def finding_lines(findings: Sequence[Finding]) -> list[Text]:
    """Beside other things, where a screen is short: notes are counted, the others a line each."""
    lines = [
        Text.assemble(
            (f"{one.severity.capitalize()}: ", TONES[one.severity]),
            f"{place(one)}: {one.why} {one.remedy}",
        )
        for one in findings
        if one.severity != "note"
    ]
    notes = [one.rule for one in findings if one.severity == "note"]
    if notes:
        count = counted(len(notes), "note")
        lines.append(Text(f"Settings: {count} of the lint ({', '.join(notes)}).", "dim"))
    return lines


def print_settings(stored: Mapping[str, Any] | None, console: Console) -> None:
    """Of a probe's report, which an older version may have written without."""
    if stored is None:
        return
    report = LintReport.read_from(stored)
    console.print()
    console.print(Text("Settings", "bold"))
    for line in (*finding_lines(report.findings), Text(read_sentence(report), "dim")):
        console.print(Padding(line, (0, 0, 0, INDENT)))


def place(finding: Finding) -> str:
    """ "config.json: torch_dtype = float16", and without what an absent value does not say."""
    return f"{finding.where} = {shown(finding.value)}"


def shown(value: object) -> str:
    """As configuration files write it: true, not True."""
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def summary(report: LintReport) -> str:
    """ "1 error, 2 warnings", or what it means that there is none."""
    if not report.findings:
        return "Nothing found." if report.settings else "Nothing found: no setting was understood."
    return f"{counts_of(report.findings)}."


def counts_of(findings: Sequence[Finding]) -> str:
    counts = {one: sum(found.severity == one for found in findings) for one in SEVERITIES}
    return ", ".join(counted(count, one) for one, count in counts.items() if count)


def read_sentence(report: LintReport) -> str:
    """An empty answer is not to be mistaken for nothing read."""
    folders = {str(PurePath(one.name).parent) for one in report.read}
    # A folder's files lie in one: its path is said once.
    folder = folders.pop() if len(folders) == 1 and len(report.read) > 1 else "."
    names = [one.name if folder == "." else PurePath(one.name).name for one in report.read]
    named = [f"{one.settings} in {name}" for one, name in zip(report.read, names, strict=True)]
    more = len(named) - MOST_NAMED
    files = ", ".join([*named[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])
    left_out = f", {len(report.ignored)} ignored" if report.ignored else ""
    read, of = counted(report.settings, "setting"), "" if folder == "." else f" of {folder}"
    read = f"Read {read}{of}: {files}; looked" if files else "Looked"
    return f"{read} at {counted(report.rules, 'rule')}{left_out}."
