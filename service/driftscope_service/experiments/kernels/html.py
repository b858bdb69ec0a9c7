"""The report of a kernel check as one HTML page without scripts.

In: the report. Out: HTML text; the same report gives the same bytes.
"""

from __future__ import annotations

import shlex
from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.verdicts import KERNEL_VERDICTS, RANKS
from driftscope_service.experiments.kernels.terminal import bits
from driftscope_service.pages.report_template import page_environment, resource

TEMPLATE = "experiments/kernels/templates/report.html.jinja"
ORDER = RANKS["kernel"]  # what a reader must see first


def render(report: KernelsReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    verdicts = report.verdicts
    counts = {name: sum(v.verdict == name for v in verdicts) for name in ORDER}
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            verdicts=sorted(verdicts, key=lambda verdict: ORDER.index(verdict.verdict)),
            counts={name: count for name, count in counts.items() if count},
            legend=KERNEL_VERDICTS,
            command=command(report.request),
            style=Markup(resource("pages", "templates", "report.css")),
            kernels_style=Markup(resource("experiments", "kernels", "templates", "report.css")),
        )
    )


def command(request: KernelsRequest) -> str:
    """The command line that gives the report again."""
    words = ["driftscope", "kernels", "check"]
    for option, field in (
        ("--target", "targets"),
        ("--op", "ops"),
        ("--dtype", "dtypes"),
        ("--threads", "threads"),
    ):
        chosen = getattr(request, field)
        if chosen is not None:
            words += [option, ",".join(map(str, chosen))]
    words += ["--quick"] if request.quick else []
    return shlex.join([*words, "--seed", str(request.seed)])


@cache
def _environment() -> Environment:
    environment = page_environment()
    environment.globals["bits"] = bits
    return environment
