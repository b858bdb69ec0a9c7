"""The report of a kernel check as one HTML page without scripts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from driftscope_probes.kernels.report import KernelsReport
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.verdicts import KERNEL_VERDICTS, RANKS
from driftscope_service.experiments.kernels.terminal import bits
from driftscope_service.pages.report_template import self_contained
from driftscope_service.pages.words import Tone

TEMPLATE = "experiments/kernels/templates/report.html.jinja"
TONES: Final[Mapping[str, Tone]] = {
    "REFUTED": "bad",
    "INCONCLUSIVE": "watch",
    "NOT_REFUTED": "none",
    "STATIC": "good",
    "PROVED": "good",
}
ORDER = RANKS["kernel"]  # what a reader must see first


def render(report: KernelsReport) -> str:
    """Everything in the report is text to this page: markup in a name or a note is shown as is."""
    verdicts = report.verdicts
    counts = {name: sum(v.verdict == name for v in verdicts) for name in ORDER}
    return self_contained(
        TEMPLATE,
        report,
        title="Kernel check",
        kind="kernel check",
        verdicts=sorted(verdicts, key=lambda verdict: ORDER.index(verdict.verdict)),
        counts={name: count for name, count in counts.items() if count},
        tones=TONES,
        legend=KERNEL_VERDICTS,
        command=command(report.request),
        bits=bits,
    )


def command(request: KernelsRequest) -> str:
    """The command line that gives the report again."""
    words = ["driftscope", "kernels", "check"]
    for option, field in (
        ("--target", "targets"),
        ("--op", "ops"),
        ("--dtype", "dtypes"),
        ("--threads", "threads"),
        ("--axis", "axes"),
    ):
        chosen = getattr(request, field)
        if chosen is not None:
            words += [option, ",".join(map(str, chosen))]
    words += ["--quick"] if request.quick else []
    return shlex.join([*words, "--seed", str(request.seed)])
