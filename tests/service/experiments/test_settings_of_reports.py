"""What a report's settings are known for, on its page and in the terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from driftscope_probes.lint.base import Finding
from driftscope_probes.lint.report import LintReport, Source
from driftscope_service.demo import load
from driftscope_service.experiments.determinism.terminal import print_determinism
from driftscope_service.experiments.diagnose.terminal import print_report as print_diagnose
from driftscope_service.experiments.explain.terminal import print_report as print_explain
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.paired.terminal import print_report
from driftscope_service.experiments.registry import load_kinds

KINDS = load_kinds()
OF_A_MODEL = ("paired", "determinism", "floor", "diagnose", "explain", "matrix")
FOUND = Finding(
    *("kv-x", "warning", "request: engine", "fp8", "It is <cut>.", "Keep it.", "here", "fp8_kv")
)
LINT = LintReport((FOUND,), (Source("request", 3),), 9).to_dict()


def read(kind: Kind) -> Any:
    return kind.read({**load.recorded_report(kind, kind.recordings[0]), "lint": LINT})


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_the_page_shows_them(name: str) -> None:
    html = KINDS[name].render(read(KINDS[name]))
    assert "What the settings are known to do" in html and "It is &lt;cut&gt;." in html
    assert 'href="/causes' not in html.split("What the settings are known to do")[1]
    assert read(KINDS[name]).to_dict()["lint"] == LINT


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_a_report_of_before_there_was_a_lint_says_nothing(name: str) -> None:
    stored = load.recorded_report(KINDS[name], KINDS[name].recordings[0])
    stored.pop("lint", None)
    assert "settings are known" not in KINDS[name].render(KINDS[name].read(stored))


@pytest.mark.parametrize(
    ("name", "show"),
    [
        ("paired", print_report),
        ("determinism", print_determinism),
        ("diagnose", print_diagnose),
        ("explain", print_explain),
    ],
)
def test_the_terminal_tells_them(name: str, show: Any) -> None:
    console = Console(file=StringIO(), width=120)
    show(read(KINDS[name]), console)
    told: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Warning: request: engine = fp8: It is <cut>. Keep it." in told
    assert "Read 3 settings: 3 in request; looked at 9 rules." in told
