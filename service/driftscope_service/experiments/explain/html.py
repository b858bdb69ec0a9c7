"""What the page of an explanation shows, and the page as one file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.explain.report import VERDICTS, ExplainReport, Verdict
from driftscope_probes.explain.server.report import ServerReport
from driftscope_service.experiments.explain.heat import heat_of
from driftscope_service.experiments.explain.reading import AnyReport
from driftscope_service.experiments.explain.words import (
    closer_sentence,
    first_words,
    growth_words,
    layers_text,
    of_layers,
    reason_label,
    reason_tone,
    way_words,
)
from driftscope_service.pages.report_template import (
    ABSENT,
    SettingRow,
    SettingTable,
    flat,
    self_contained,
)
from driftscope_service.pages.words import RunState, Tone

TEMPLATE: Final = "experiments/explain/templates/report.html.jinja"
TONES: Final[Mapping[Verdict, Tone]] = {
    "equal": "good",
    "rounding": "watch",
    "fault": "bad",
    "unexplained": "watch",
    "not_comparable": "bad",
}


def render(report: AnyReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    title = f"{report.model['name']}: explanation"
    return self_contained(
        TEMPLATE,
        report,
        title=title,
        kind="explanation",
        script="explain.js" if isinstance(report, ExplainReport) else None,
        **content(report),
    )


def content(report: AnyReport) -> dict[str, Any]:
    state = RunState(TONES[report.verdict], VERDICTS[report.verdict], report.sentence)
    if isinstance(report, ServerReport):
        return {"state": state, "outside": True}
    return {
        "state": state,
        "outside": False,
        "heat": heat_of(report.compared, report.ops),
        "closer": closer_sentence(report.ops),
        "growth_sentence": growth_words(report.growth),
        "ran": _ran(report.ran),
        "failed": [check for check in report.alignment.checks if not check.equal],
        "layers_text": layers_text,
        "of_layers": of_layers,
        "reason_label": reason_label,
        "reason_tone": reason_tone,
        "first_words": first_words,
        "way_words": way_words,
    }


def _ran(ran: Mapping[str, Mapping[str, Any]]) -> tuple[SettingTable, SettingTable]:
    """A column a side: what all of them have, and what only some have."""
    sides = [flat(values) for values in ran.values()]
    names = dict.fromkeys(name for side in sides for name in side)
    rows = [SettingRow(name, tuple(side.get(name, ABSENT) for side in sides)) for name in names]
    return (
        SettingTable(tuple(ran), tuple(row for row in rows if ABSENT not in row.values)),
        SettingTable(tuple(ran), tuple(row for row in rows if ABSENT in row.values)),
    )
