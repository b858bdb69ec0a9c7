"""The files of a night beside its report.json: an HTML page without scripts, and JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from xml.etree import ElementTree as ET

from driftscope_probes.nightly.report import ItemReport, NightlyReport
from driftscope_probes.verdicts import NOT_RUN, OUTCOMES
from driftscope_service.experiments.nightly.terminal import counts, shown, state
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import Tone

SUITE = "driftscope.nightly"
#: Characters that XML 1.0 (section 2.2) cannot hold; an engine's message may.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(result: NightlyReport) -> str:
    reasons = {alarm.partition(": ")[0]: alarm for alarm in result.alarms}
    cases = [_case(item, reasons) for item in result.items]
    cases.append(_environment_case(result))
    root = ET.Element("testsuites", name=SUITE)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=f"{SUITE}.{result.config.name}",
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped="0",
        time=_seconds(sum(item.seconds for item in result.items)),
        # The schema of the format has no time zone; the time is UTC.
        timestamp=result.started_at[:19],
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in result.key.versions.items():
        ET.SubElement(properties, "property", name=_xml_text(name), value=_xml_text(shown(value)))
    suite.extend(cases)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(item: ItemReport, reasons: Mapping[str, str]) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=f"{SUITE}.{item.kind}",
        name=_xml_text(item.id),
        time=_seconds(item.seconds),
    )
    detail = item.detail.get("reason") or ""
    if item.verdict in NOT_RUN.values():
        _outcome(case, "error", "not run", str(detail))
    elif item.id in reasons:
        lines = [str(detail), f"replay: {item.replay}" if item.replay else ""]
        _outcome(case, "failure", reasons[item.id], "\n".join(filter(None, lines)))
    return case


def _environment_case(result: NightlyReport) -> ET.Element:
    """Fails where a change of the environment is a reason of exit code 1."""
    case = ET.Element("testcase", classname=SUITE, name="environment", time="0.000")
    items = {item.id for item in result.items}
    alarms = [alarm for alarm in result.alarms if alarm.partition(": ")[0] not in items]
    lines = "\n".join(
        f"{change.name}: {shown(change.before)} -> {shown(change.after)}"
        for change in result.changed_environment
    )
    if alarms:
        _outcome(case, "failure", "; ".join(alarms), lines)
    elif lines:
        ET.SubElement(case, "system-out").text = _xml_text(lines)
    return case


def _outcome(case: ET.Element, kind: str, message: str, text: str) -> None:
    ET.SubElement(case, kind, type=kind, message=_xml_text(message)).text = _xml_text(text)


def _xml_text(value: str) -> str:
    return _ILLEGAL.sub("\ufffd", value)


def _seconds(value: float) -> str:
    return f"{value:.3f}"


TEMPLATE = "experiments/nightly/templates/report.html.jinja"
TONES: Final[Mapping[str, Tone]] = {
    "worse": "bad",
    "unexpected": "bad",
    "better": "watch",
    "not run": "none",
    "new": "good",
    "as expected": "good",
}


def render(result: NightlyReport) -> str:
    """Everything in the result is text to this page: markup in a name or a note is shown as is."""
    return self_contained(
        TEMPLATE,
        result,
        title="Nightly check",
        kind="nightly check",
        outcome=OUTCOMES[result.exit_code],
        counts=counts(result.items),
        tones=TONES,
        state=state,
        shown=shown,
    )


PAGES: dict[str, Callable[[NightlyReport], str]] = {
    "report.xml": render_junit,
    "report.html": render,
}
