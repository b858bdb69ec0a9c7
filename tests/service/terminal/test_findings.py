"""Findings and differences in a terminal: nothing cut, notes folded where a screen is short."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from driftscope_probes.lint.against import Comparison, compare_hosts
from driftscope_probes.lint.base import Finding, Severity
from driftscope_probes.lint.host import host_of
from driftscope_probes.lint.readers.registry import document
from driftscope_probes.lint.report import LintReport, Source
from driftscope_service.terminal.differences import print_comparison
from driftscope_service.terminal.findings import (
    finding_lines,
    print_report,
    print_settings,
    read_sentence,
    summary,
)

DEEP = "/a/folder/" + "with/a/long/path/" * 8 + "config.json"


def finding(severity: Severity, where: str = "run.yaml: a.b", value: Any = True) -> Finding:
    return Finding(
        f"rule-{severity}", severity, where, value, "It [differs].", "Set it.", "here", None
    )


def printed(show: Any, *arguments: Any, **options: Any) -> str:
    console = Console(file=StringIO(), width=80, force_terminal=False)
    show(*arguments, console, **options)
    told: str = console.file.getvalue()  # type: ignore[attr-defined]
    return told


def test_a_path_is_never_cut_and_brackets_are_text() -> None:
    report = LintReport((finding("error", f"{DEEP}: key"),), (Source(DEEP, 3),), 7)
    told = printed(print_report, report)
    assert f"  {DEEP}: key = true\n" in told and "  It [differs]. " in told
    assert told.startswith("1 error.\nRead 3 settings: ")


def test_the_sentence_says_what_was_read() -> None:
    of_folder = (Source("m/config.json", 3), Source("m/generation_config.json", 1))
    assert read_sentence(LintReport((), of_folder, 7, ("x",))) == (
        "Read 4 settings of m: 3 in config.json, 1 in generation_config.json; looked at 7 rules, "
        "1 ignored."
    )
    of_many = tuple(Source(f"{number}.yaml", 1) for number in range(8))
    assert "1 in 5.yaml, 2 more; looked" in read_sentence(LintReport((), of_many, 1))
    assert read_sentence(LintReport((), (), 7)) == "Looked at 7 rules."
    assert summary(LintReport((), of_folder, 7)) == "Nothing found."
    assert summary(LintReport((), (), 7)) == "Nothing found: no setting was understood."


def test_notes_are_counted_where_others_are_told() -> None:
    findings = [finding("warning"), finding("note"), finding("note")]
    lines = [line.plain for line in finding_lines(findings)]
    assert lines == [
        "Warning: run.yaml: a.b = true: It [differs]. Set it.",
        "Settings: 2 notes of the lint (rule-note, rule-note).",
    ]


def test_a_report_of_before_there_was_a_lint_says_nothing_of_it() -> None:
    assert printed(print_settings, None) == ""
    stored = LintReport((finding("error"),), (Source("request", 2),), 5).to_dict()
    told = printed(print_settings, stored)
    assert "Settings\n" in told and "Error: run.yaml: a.b = true" in told
    assert "2 in request; looked at 5 rules." in told


def compared(here: str, there: str) -> Comparison:
    return compare_hosts(*(host_of([document("pip.txt", text)]) for text in (here, there)))


def test_differences_that_cannot_matter_are_folded() -> None:
    found = compared("torch==2.9\nrich==1", "torch==2.10\nrich==2")
    told = printed(print_comparison, found)
    assert "2 differences, 0 the same.\n" in told
    assert "Can change numerics\n  torch: 2.9 → 2.10  (versions of packages)\n" in told
    assert "Cannot change numerics: 1 difference; --all\n" in told and "rich" not in told
    assert "  rich: 1 → 2" in printed(print_comparison, found, every=True)
