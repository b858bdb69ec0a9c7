"""The report of a determinism probe as one HTML page without scripts.

In: the report. Out: HTML text; the same report gives the same bytes.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from driftscope_probes.determinism.report import DeterminismReport
from driftscope_probes.verdicts import NOT_RUN, RANKS
from driftscope_service.pages.report_template import page_environment, resource

TEMPLATE = "experiments/determinism/templates/report.html.jinja"
#: What a reader must see first.
ORDER = (*RANKS["engine"], NOT_RUN["engine"])
WORDS = {name: name.replace("_", " ") for name in ORDER}


def render(report: DeterminismReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    axes = report.axes
    counts = {WORDS[name]: sum(axis.verdict == name for axis in axes) for name in ORDER}
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            axes=sorted(axes, key=lambda axis: ORDER.index(axis.verdict)),
            counts={name: count for name, count in counts.items() if count},
            words=WORDS,
            style=Markup(resource("pages", "templates", "report.css")),
        )
    )


@cache
def _environment() -> Environment:
    return page_environment()
