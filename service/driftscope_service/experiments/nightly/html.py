"""A night as JUnit XML, which CI systems show: a test case per item.

In: the JSON of a night. Out: XML text. An unexpected or changed verdict is a failure, an item that
could not be run an error; what changed around them is the test case "environment".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from driftscope_service.export.nightly_terminal import NOT_RUN, shown

SUITE = "driftscope.nightly"
#: Characters that XML 1.0 (section 2.2) cannot hold; an engine's message may.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(result: Mapping[str, Any]) -> str:
    reasons = {alarm.partition(": ")[0]: alarm for alarm in result["alarms"]}
    cases = [_case(item, reasons) for item in result["items"]]
    cases.append(_environment_case(result))
    root = ET.Element("testsuites", name=SUITE)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=f"{SUITE}.{result['config']['name']}",
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped="0",
        time=_seconds(sum(item["seconds"] for item in result["items"])),
        # The schema of the format has no time zone; the time is UTC.
        timestamp=result["started_at"][:19],
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in result["key"]["versions"].items():
        ET.SubElement(properties, "property", name=_text(name), value=_text(shown(value)))
    suite.extend(cases)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(item: Mapping[str, Any], reasons: Mapping[str, str]) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=f"{SUITE}.{item['kind']}",
        name=_text(item["id"]),
        time=_seconds(item["seconds"]),
    )
    detail = item["detail"].get("reason") or ""
    if item["verdict"] in NOT_RUN:
        _outcome(case, "error", "not run", str(detail))
    elif item["id"] in reasons:
        lines = [str(detail), f"replay: {item['replay']}" if item["replay"] else ""]
        _outcome(case, "failure", reasons[item["id"]], "\n".join(filter(None, lines)))
    return case


def _environment_case(result: Mapping[str, Any]) -> ET.Element:
    """Fails where a change of the environment is a reason of exit code 1."""
    case = ET.Element("testcase", classname=SUITE, name="environment", time="0.000")
    items = {item["id"] for item in result["items"]}
    alarms = [alarm for alarm in result["alarms"] if alarm.partition(": ")[0] not in items]
    lines = "\n".join(
        f"{change['name']}: {shown(change['before'])} -> {shown(change['after'])}"
        for change in result["changed_environment"]
    )
    if alarms:
        _outcome(case, "failure", "; ".join(alarms), lines)
    elif lines:
        ET.SubElement(case, "system-out").text = _text(lines)
    return case


def _outcome(case: ET.Element, kind: str, message: str, text: str) -> None:
    ET.SubElement(case, kind, type=kind, message=_text(message)).text = _text(text)


def _text(value: str) -> str:
    return _ILLEGAL.sub("\ufffd", value)


def _seconds(value: float) -> str:
    return f"{value:.3f}"
