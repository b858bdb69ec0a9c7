"""The matrix probe: do several places give the same bits for the same tokens?"""

from __future__ import annotations

from typing import Any, Final

from driftscope_probes.matrix.report import MatrixReport, SubjectReport
from driftscope_service.experiments.kind import (
    Answer,
    CommandLine,
    Kind,
    ReportPage,
    Summary,
)
from driftscope_service.experiments.matrix.job import NAME, MatrixProbeRequest, probe_request
from driftscope_service.experiments.matrix.metrics import METRICS, families
from driftscope_service.experiments.matrix.page import (
    matrix_state,
    page_data,
    pairs_data,
    render,
)


def summarise(report: MatrixReport) -> dict[str, Any]:
    """The sentence, the verdict, and per subject how many classes lie how far apart."""
    failed = len(report.failed)
    return {
        "sentence": report.sentence,
        "verdict": report.verdict,
        "ran": len(report.places) - failed,
        "failed": failed,
        "subjects": [_subject(subject) for subject in report.subjects],
    }


def _subject(subject: SubjectReport) -> dict[str, Any]:
    largest = subject.largest
    return {
        **{name: getattr(subject, name) for name in ("side", "way", "dtype", "verdict")},
        "classes": len(subject.classes),
        "abs_diff_mean": 0.0 if largest is None else largest.abs_diff_mean,
    }


def sentence(summary: Summary) -> str:
    return str(summary["sentence"])


def answer(summary: Summary) -> Answer:
    state = matrix_state(summary["verdict"], summary["failed"], summary["sentence"])
    return Answer(state.tone, state.word)


KIND: Final = Kind(
    name=NAME,
    label="Matrix probe",
    package=__package__,
    docs="matrix.md",
    operation="start_matrix_probe",
    description="Queue a matrix probe: the same model at several places (interpreters, variables, "
    "nodes of a Ray cluster), the results compared with each other and with what differs between "
    "the places. Clients name places, the operator defines them.",
    request=MatrixProbeRequest,
    prepare=probe_request,
    quotas=("max_response_tokens", "max_threads"),
    runner="driftscope_probes.matrix.run",
    smaller="ask for fewer prompts or tokens, or a smaller model.",
    report_holds="classes of places that give the same bits, and what goes with them",
    read=MatrixReport.read,
    summarise=summarise,
    sentence=sentence,
    answer=answer,
    render=render,
    page=ReportPage("experiments/matrix/templates/report", page_data, {"pairs": pairs_data}),
    command_line=CommandLine(
        ("driftscope", "probe", "matrix"),
        service_only={"places": "--place and --variable"},
    ),
    metrics=METRICS,
    families=families,
    recordings=("matrix",),
)
