"""Findings on a page: open where something can go wrong, folded notes, no link out of a file."""

from __future__ import annotations

from typing import Any

from driftscope_probes.lint.base import Finding, Severity
from driftscope_service.pages.report_template import environment

PART = "pages/templates/parts/findings.html.jinja"


def shown(*severities: Severity, **options: Any) -> str:
    findings = [
        Finding(one, one, "run.yaml: a", True, "<b>Why</b>.", "Change.", "here", "dropout_active")
        for one in severities
    ]
    part: Any = environment().get_template(PART).module
    return str(part.section(findings, **options))


def test_notes_are_folded_and_others_are_not() -> None:
    assert "<details open>" in shown("warning", "note")
    assert "<details>" in shown("note") and "1 finding, most severe first: note" in shown("note")
    assert shown().strip() == ""


def test_a_file_by_itself_leads_nowhere() -> None:
    assert 'href="/causes/dropout_active"' in shown("error")
    alone = shown("error", site=False)
    assert "href" not in alone and "dropout_active" in alone


def test_what_a_file_says_is_text() -> None:
    assert "&lt;b&gt;Why&lt;/b&gt;" in shown("error") and "run.yaml: a = true" in shown("error")
