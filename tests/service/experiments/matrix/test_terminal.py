"""The recorded matrix in the terminal and its exit code; options that name places."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from driftscope_probes.errors import RequestError
from driftscope_probes.matrix.report import MatrixReport
from driftscope_service.demo import load
from driftscope_service.experiments.matrix.command import exit_code, places_of
from driftscope_service.experiments.matrix.kind import KIND
from driftscope_service.experiments.matrix.page import command
from driftscope_service.experiments.matrix.terminal import print_matrix


@pytest.fixture
def report() -> MatrixReport:
    return MatrixReport.read(load.recorded_report(KIND, "matrix"))


def test_sentence_first_then_classes_and_environments(report: MatrixReport) -> None:
    console = Console(file=StringIO(), width=80, no_color=True)
    print_matrix(report, console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert text.startswith(report.sentence[:40])
    for subject in report.subjects:
        assert f"{subject.words}: {subject.verdict.replace('_', ' ')}" in text
    for fact in report.facts:
        assert fact.name in text
    for place in report.failed:
        assert place.reason is not None and place.reason in text


def test_exit_codes(report: MatrixReport) -> None:
    failed = report.places[0].model_copy(update={"state": "failed"})
    ran = tuple(place for place in report.places if place.state == "ran")
    equal: dict[str, Any] = {"verdict": "equal", "places": ran}
    assert exit_code(report.model_copy(update=equal)) == 0
    assert exit_code(report.model_copy(update={**equal, "places": (failed, *ran)})) == 2
    for verdict in ("differs", "not_repeatable"):
        assert exit_code(report.model_copy(update={"verdict": verdict, "places": (failed,)})) == 1


def test_the_command_that_gives_it_again_names_the_same_places(report: MatrixReport) -> None:
    words = command(report).split()
    given = [words[index + 1] for index, word in enumerate(words) if word == "--place"]
    variables = [words[index + 1] for index, word in enumerate(words) if word == "--variable"]
    names, known = places_of(given, variables)
    assert names is not None and len(names) == len(report.places)
    for place in report.places:
        if place.variables:
            assert known[place.place].variables == place.variables


def test_places_by_options() -> None:
    assert places_of([], []) == (None, {})
    names, known = places_of([], ["one:OMP_NUM_THREADS=1"])
    assert names == ["here", "one"] and known["one"].variables == {"OMP_NUM_THREADS": "1"}
    names, known = places_of(["old=/opt/python", "here"], ["old:MKL_CBWR=AVX2"])
    assert names == ["old", "here"] and str(known["old"].python) == "/opt/python"


@pytest.mark.parametrize(
    ("places", "variables", "told"),
    [
        (["here=/opt/python"], [], "as it is"),
        ([], ["here:OMP_NUM_THREADS=1"], "as it is"),
        (["a/b"], [], "is not accepted"),
        ([], ["x:PATH=/tmp"], "not one that reports record"),
        ([], ["OMP_NUM_THREADS=1"], "is not NAME:VARIABLE=VALUE"),
    ],
)
def test_options_that_are_refused(places: list[str], variables: list[str], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        places_of(places, variables)
