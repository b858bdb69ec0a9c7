"""`driftscope probe matrix`: the same model at several places, the results compared.

The work is done in processes of its own. Exit codes: 0 all places agree bit for bit, 1 they differ
or one does not repeat itself, 2 a place, or the whole, could not be run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.errors import RequestError
from driftscope_probes.matrix.places.base import LocalDefinition, checked_name
from driftscope_probes.matrix.report import MatrixReport
from driftscope_probes.matrix.request import HERE, MatrixRequest
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.experiments.matrix.terminal import print_matrix
from driftscope_service.terminal.commands import (
    CHOICES,
    COULD_NOT_RUN,
    FOUND,
    Json,
    checked,
    fields,
    print_result,
    request_options,
    run_child,
)


def request_of(values: Mapping[str, Any]) -> MatrixRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    return checked(MatrixRequest, values, command="probe matrix")


@request_options(
    fields(
        MatrixRequest,
        {
            "model": "Catalogue name, local folder or Hub id.",
            "engine_dtypes": "Comma-separated.",
            "trainer_dtypes": "Comma-separated.",
            **dict.fromkeys(("engine", "kernels"), CHOICES),
            "prompts": "How many of the shipped prompts.",
            "max_tokens": "Response tokens per prompt.",
            "seed": "",
            "threads": "Default: every core of a place, or its OMP_NUM_THREADS.",
        },
    ),
    fields(
        MatrixRequest,
        {
            "ray": "Nodes of a Ray cluster too: off, each or types.",
            "place_seconds": "After which a place is given up.",
        },
        panel="Places",
    ),
)
@kept
def matrix(
    values: dict[str, Any],
    keep: Keep,
    place: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME=PYTHON, as often as needed; the first one samples. Default: here, "
            "this interpreter, twice.",
            rich_help_panel="Places",
        ),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:VARIABLE=VALUE, set at the place NAME alone.", rich_help_panel="Places"
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Of the cluster.", show_default="the one that runs here", rich_help_panel="Places"
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Run one model at several places and compare their log-probabilities bit by bit.

    Exits 1 where places differ, 2 where one of them could not be run.
    """
    names, known = places_of(place or (), variable or ())
    request = request_of({**values, "places": names})
    asked = {
        "kind": "matrix",
        "request": request.model_dump(mode="json"),
        "places": {name: one.model_dump(mode="json") for name, one in known.items()},
        "ray_address": ray_address,
    }
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        report = run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)
    typed = MatrixReport.read(report)
    print_result(report, json_, lambda _, console: print_matrix(typed, console))
    keep(report)
    code = exit_code(typed)
    if code:
        raise typer.Exit(code)


def exit_code(report: MatrixReport) -> int:
    if report.verdict != "equal":
        return FOUND
    return COULD_NOT_RUN if report.failed else 0


def places_of(
    places: Sequence[str], variables: Iterable[str]
) -> tuple[list[str] | None, dict[str, LocalDefinition]]:
    """Names in their order, None where none was given, and what they stand for.

    Raises RequestError.
    """
    names: list[str] = []
    pythons: dict[str, Path] = {}
    for text in places:
        name, said, python = text.partition("=")
        names.append(name)
        if said:
            pythons[name] = Path(python).expanduser().absolute()
    own: dict[str, dict[str, str]] = {}
    for text in variables:
        name, colon, setting = text.partition(":")
        variable, equals, value = setting.partition("=")
        if not colon or not equals:
            raise RequestError(
                f"--variable {text!r} is not NAME:VARIABLE=VALUE.",
                remedy="give, for example, --variable threads1:OMP_NUM_THREADS=1.",
            )
        if name not in names:
            names = [*(names or [HERE]), name]
        own.setdefault(name, {})[variable] = value
    if HERE in pythons or HERE in own:
        raise RequestError(
            f"the place {HERE} is this interpreter as it is.",
            remedy="give a place of another name its own interpreter or variables.",
        )
    known = {name: _definition(name, pythons.get(name), own.get(name, {})) for name in names}
    return names or None, {name: one for name, one in known.items() if name != HERE}


def _definition(name: str, python: Path | None, variables: Mapping[str, str]) -> LocalDefinition:
    try:
        checked_name(name)
        return LocalDefinition(python=python, variables=dict(variables))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RequestError(f"place {name}: {said}.", remedy="correct the option.") from error
    except ValueError as error:
        raise RequestError(f"{error}.", remedy="correct the option --place.") from error


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(matrix)
