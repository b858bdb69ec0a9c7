"""The report of a server from outside: in the terminal, on its page, and read again."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from driftscope_probes.explain.report import VERDICTS, Check, Verdict
from driftscope_service.experiments.explain.html import render
from driftscope_service.experiments.explain.kind import KIND
from driftscope_service.experiments.explain.page import compared_data, growth_data, ops_data
from driftscope_service.experiments.explain.reading import read_report
from driftscope_service.experiments.explain.server_terminal import print_any

from .example import explanation
from .server_example import from_outside
from .test_page import EVIL, visible

NOTHING: dict[str, Any] = {
    **dict.fromkeys(("remedy", "precision", "floors", "gap", "sigma", "best", "truncation")),
    **{"server_settings": [], "trainer_variants": [], "not_tried": [], "unknown": [], "notes": []},
}


def test_the_door_says_which_form_a_report_has() -> None:
    for report in (from_outside(), explanation()):
        assert read_report(report.to_dict()) == report
        assert KIND.read(report.to_dict()) == report


def test_the_page_says_what_was_changed_and_what_stays_unknown() -> None:
    text = visible(render(from_outside()))
    order = (
        *("an op is at fault", "falls to the floor", "make both sides agree: softcap."),
        *("They part from position 128 on.", "0.210 → 0.0123", "window 128", "contradicts itself"),
        *("What cannot be known from outside", "the order of additions", "the model has none"),
    )
    places = [text.index(one) for one in order]
    assert places == sorted(places)
    assert "Every op of every layer" not in text


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_report_of_nothing_has_a_page(verdict: Verdict) -> None:
    failed = Check(what="longest", equal=False, says=EVIL)
    report = from_outside(**NOTHING, verdict=verdict, checks=[failed], sentence=EVIL)
    page = render(report)
    assert EVIL in visible(page) and "<img src=x" not in page and "<script" not in page
    console = Console(file=StringIO(), width=80)
    print_any(report, console)
    told: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.startswith(EVIL) and "Not the same on both sides" in told
    summary = KIND.summarise(report)
    assert summary["equal_by_op"] == {} and summary["abs_diff_mean"] is None


def test_the_terminal_says_it_too() -> None:
    console = Console(file=StringIO(), width=80)
    print_any(from_outside(), console, location="a.html")
    told: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.startswith(from_outside().sentence) and told.endswith("Report: a.html\n")
    for part in (
        "softcap dropped: mean |Δ| 0.210 →",
        "window 128",
        "What would tell: --dumps A B",
        "87 requests",
    ):
        assert part in told


def test_the_tables_of_ops_are_empty() -> None:
    for data in (ops_data(from_outside()), growth_data(from_outside())):
        assert data.rows == [] and data.about["empty"]
    assert compared_data(from_outside()).rows == []
