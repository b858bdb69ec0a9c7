"""A night in the terminal, as JUnit XML and as a page: every state, hostile text, same bytes."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from driftscope_probes.nightly.history import read_report
from driftscope_probes.nightly.report import ItemReport, NightlyReport
from driftscope_service.experiments.nightly import html as nightly_html
from driftscope_service.experiments.nightly import html as nightly_junit
from driftscope_service.experiments.nightly.html import PAGES
from driftscope_service.experiments.nightly.terminal import counts, print_night, state

HOSTILE = "<script>alert(1)</script> & \"'\x1b[31m\x00"


def item(
    name: str, verdict: str, expected: str, changed: str | None, previous: str | None = None
) -> ItemReport:
    fields = {
        "id": f"kernel/{name}/fp32/t1",
        "kind": "kernel",
        "expected": expected,
        "verdict": verdict,
        "previous": previous,
        "previous_expected": previous and expected,
        "previous_night": previous and "2026-11-21T03:00:00+00:00",
        "changed": changed,
        "as_expected": verdict == expected,
        "seconds": 1.25,
        "settings": {},
        "detail": {"reason": HOSTILE},
        "replay": None if verdict == "NOT_RUN" else "driftscope kernels check --replay '{}'",
    }
    return ItemReport.read(fields)


def night(exit_code: int = 1, **changes: Any) -> NightlyReport:
    items = [
        item("a/linear/same", "PROVED", "PROVED", None, "PROVED"),
        item("a/linear/new", "PROVED", "PROVED", "new"),
        item("a/linear/worse", "REFUTED", "PROVED", "worse", "PROVED"),
        item("a/linear/better", "PROVED", "PROVED", "better", "REFUTED"),
        item("a/linear/still", "REFUTED", "PROVED", None, "REFUTED"),
        item("a/linear/absent", "NOT_RUN", "PROVED", None, "PROVED"),
    ]
    alarming = [one for one in items if state(one) in ("worse", "better", "unexpected")]
    alarms = [f"{one.id}: {one.verdict}, expected {one.expected}" for one in alarming]
    alarms.append("torch: 2.12.0 last night, 2.13.0 now")
    fields = {
        "schema_version": "1",
        "kind": "nightly",
        "exit_code": exit_code,
        "started_at": "2026-11-22T03:00:00+00:00",
        "finished_at": "2026-11-22T03:09:00+00:00",
        "config": {"name": "cpu", "sha256": "0" * 64},
        "key": {"hardware": {"cpu": "Some CPU"}, "versions": {"torch": "2.13.0"}},
        "alarms": alarms,
        "items": items,
        "changed_environment": [
            {"kind": "version", "name": "torch", "before": "2.12.0", "after": "2.13.0"},
            {"kind": "variable", "name": "OMP_NUM_THREADS", "before": None, "after": "2"},
        ],
        "environment": {
            "python": "3.11.0",
            "platform": "Linux",
            "packages": {"driftscope": "0.1.0", "torch": "2.13.0"},
            "hardware": {"cpu": "Some CPU"},
            "variables": {},
            "libraries": {},
            "kernel_packages": {},
        },
        "resumed": 2,
        "budget_s": 900.0,
        "notes": [HOSTILE],
        **changes,
    }
    return NightlyReport.read(fields)


def test_the_example_is_what_the_history_takes() -> None:
    assert read_report(night().to_dict()) == night()


def test_every_item_has_one_state_and_the_worst_come_first() -> None:
    assert [state(one) for one in night().items] == [
        *("as expected", "new", "worse", "better", "unexpected", "not run")
    ]
    assert list(counts(night().items)) == [
        "worse",
        "better",
        "unexpected",
        "not run",
        "new",
        "as expected",
    ]


def test_the_terminal_names_everything_and_cuts_no_id() -> None:
    out = io.StringIO()
    print_night(night(), Console(file=out, width=60))
    text = out.getvalue()
    for one in night().items:
        assert re.search(rf"^{state(one)}.* {one.id}$", text, re.MULTILINE)
    for alarm in night().alarms:
        assert alarm in text
    assert "Changed: torch, 2.12.0 → 2.13.0" in text
    assert "Changed: OMP_NUM_THREADS, absent → 2" in text
    assert "a/linear/absent/fp32/t1: not run" in text
    assert "From a start that was interrupted: 2 items." in text
    assert "Something changed: 1 worse, 1 better, 1 unexpected, 1 not run" in text


def test_the_last_line_says_where_no_verdict_changed() -> None:
    result = night(items=night().items[:1])
    out = io.StringIO()
    print_night(result, Console(file=out, width=60))
    assert out.getvalue().endswith("Something changed, though no verdict: 1 as expected.\n")


def test_junit_counts_what_it_lists() -> None:
    suite = ET.fromstring(nightly_junit.render_junit(night()))[0]
    cases = suite.findall("testcase")
    assert len(cases) == int(suite.attrib["tests"]) == len(night().items) + 1
    failed = [case.attrib["name"] for case in cases if case.find("failure") is not None]
    assert failed == [
        *("kernel/a/linear/worse/fp32/t1", "kernel/a/linear/better/fp32/t1"),
        *("kernel/a/linear/still/fp32/t1", "environment"),
    ]
    assert [case.attrib["name"] for case in cases if case.find("error") is not None] == [
        "kernel/a/linear/absent/fp32/t1"
    ]
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("4", "1")
    failure = cases[2].find("failure")
    assert failure is not None and failure.text is not None
    assert "--replay" in failure.text
    environment = cases[-1].find("failure")
    assert environment is not None
    assert "torch: 2.12.0 last night" in environment.attrib["message"]


def test_junit_of_a_change_that_is_only_reported_is_no_failure() -> None:
    result = night(alarms=night().alarms[:-1])
    case = ET.fromstring(nightly_junit.render_junit(result))[0].findall("testcase")[-1]
    assert case.find("failure") is None
    shown = case.find("system-out")
    assert shown is not None and "2.12.0" in str(shown.text)


@given(text=st.text(max_size=30))
@settings(max_examples=40, deadline=None)
def test_any_text_gives_xml_that_parses_and_a_page_without_its_markup(text: str) -> None:
    items = list(night().items)
    detail = {"reason": f"<b>{text}</b>"}
    items[2] = items[2].model_copy(update={"detail": detail, "replay": text})
    result = night(items=items, notes=[text])
    ET.fromstring(nightly_junit.render_junit(result).encode("utf-8"))
    assert "<b>" not in nightly_html.render(result)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action")]


def test_the_page_is_whole_and_loads_nothing() -> None:
    text = nightly_html.render(night())
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.targets == ["#main"]
    for needed in ("Something changed", "2 items were found by a start", "exit code 1"):
        assert needed in text
    for one in night().items:
        assert one.id in text
    assert page.tags.count("h1") == 1
    assert nightly_html.render(night()) == text


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(0, "As expected"), (1, "Something changed"), (2, "Something could not be run")],
)
def test_the_heading_says_the_outcome(code: int, outcome: str) -> None:
    result = night(code, alarms=[], changed_environment=[])
    text = PAGES["report.html"](result)
    assert f"<h1>{outcome}</h1>" in text
    assert "Nothing that is recorded" in text
