"""`driftscope diagnose`: run controls on a live pair, or say which to run in another framework.

With --model an engine and a trainer are run here. Without it nothing is: the step's data rank the
causes, and the controls are printed as options of the user's own framework.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from driftscope_probes.analysis import analyze_step
from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.diagnose.hand import hand_plan
from driftscope_probes.diagnose.recorded import StepData, step_data
from driftscope_probes.diagnose.report import FINE, DiagnoseReport
from driftscope_probes.diagnose.request import DiagnoseRequest, DiagnoseTrainer, outcomes_of
from driftscope_probes.diagnosis.by_hand.base import FRAMEWORKS, Framework
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.controls.registry import CONTROLS
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.store import FOLDER, FloorStore, default_folder
from driftscope_probes.push import PushError, read_step
from driftscope_service.experiments.diagnose.terminal import (
    print_controls,
    print_plan,
    print_report,
)
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.terminal.commands import (
    CHOICES,
    FOUND,
    Json,
    checked,
    fields,
    print_json,
    request_options,
    run_child,
)
from driftscope_service.terminal.pair_options import (
    CHAT_TEMPLATE,
    OF_BOTH_SIDES,
    OF_ENGINE,
    OF_SAMPLING,
    PROMPTS,
    sides_of,
)
from driftscope_service.terminal.prompt_file import read_prompts_option

#: What a calibrated floor is found by, in the metadata of a step.
FLOOR_KEYS: Final = ("model", "rollout_dtype", "trainer_dtype")


def request_of(values: Mapping[str, Any]) -> DiagnoseRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    sides = sides_of(values, DiagnoseTrainer, command="diagnose")
    given = {
        "prompts": read_prompts_option(values["prompts"]),
        "older_models": _words(values["older_models"]),
        "control": _words(values["control"]),
    }
    return checked(DiagnoseRequest, {**values, **sides, **given}, command="diagnose")


def _words(given: Any) -> list[str]:
    """An option may be repeated, and each may hold several, separated by commas."""
    said = [given] if isinstance(given, str) else given or []
    return [word.strip() for one in said for word in one.split(",") if word.strip()]


@request_options(
    fields(
        DiagnoseRequest,
        {
            "trainer_model": "The trainer's own, or an adapter's base. Default: the engine's.",
            "adapter": "Folder of a LoRA adapter that the trainer adds, unmerged.",
            "engine_adapter": CHOICES,
            "budget": "Seconds; a control that was begun is finished.",
            "engine_dtype": "Default: as the step says it, else bf16.",
            "trainer_dtype": "Default: as the step says it, else bf16.",
            "prompts": PROMPTS,
            "chat_template": CHAT_TEMPLATE,
        },
    ),
    OF_BOTH_SIDES,
    OF_SAMPLING,
    OF_ENGINE,
    fields(
        DiagnoseTrainer,
        {"attention": CHOICES, "micro_batch": "", "batching": CHOICES, "padding_side": ""},
        panel="Trainer",
    ),
)
@kept
def diagnose(
    values: dict[str, Any],
    keep: Keep,
    file: Annotated[
        Path | None, typer.Argument(help="A step, in a format of docs/push-format.md.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Run engine and trainer of it here; without: by hand.")
    ] = None,
    older_models: Annotated[
        list[str] | None,
        typer.Option("--older-model", help="Checkpoint of an earlier step; newest first."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="Outcome of a control that was run elsewhere: NAME=clean or NAME=dirty."),
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option(help=f"Without --model, only options of {', '.join(FRAMEWORKS)}."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="List all controls, run nothing.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Of the service.", show_default="driftscope-data")
    ] = None,
    json_: Json = False,
) -> None:
    """Find the cause of a difference by controls, the one that tells most per second first.

    Exits 0 where there is nothing to explain, 1 where a cause is named or the search is not over.
    """
    if controls:
        return print_controls(CONTROLS, Console())
    values = {**values, "older_models": older_models, "control": control}
    floors = default_folder() if data_dir is None else data_dir / FOLDER
    if model is None:
        _refuse_without_model(values)
        return _by_hand(file, values, floors, framework, json_)
    request = request_of({**values, "model": model})
    report = DiagnoseReport.read(_measured(request, file, floors))
    if json_:
        print_json(report.to_dict())
    else:
        print_report(report, Console())
    keep(report.to_dict())
    if report.verdict != "at_floor":
        raise typer.Exit(FOUND)


def _measured(request: DiagnoseRequest, file: Path | None, floors: Path) -> dict[str, Any]:
    data = None if file is None else _data_of(file, floors)
    asked: Mapping[str, Any] = {
        "kind": "diagnose",
        "request": request.model_dump(mode="json"),
        "floors": str(floors.absolute()),
        "data": None if data is None else data.to_dict(),
        "source": None if file is None else {"file": file.name},
    }
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)


def _data_of(file: Path, floors: Path) -> StepData:
    try:
        step = read_step(file)
    except PushError as error:
        raise PushError(f"{file}: {error.message}", remedy=error.remedy) from error
    known = (step.metadata.get(name) for name in FLOOR_KEYS)
    # Intervals are not shown here, and take most of the time.
    analysis = analyze_step(step, resamples=0, floor=FloorStore(floors).find(*known))
    return step_data(step, analysis.diagnosis)


def _refuse_without_model(values: Mapping[str, Any]) -> None:
    """What only a live pair has a use for, where none is to run."""
    for name in OF_A_PAIR:
        if values.get(name):
            option = f"--{name.removesuffix('s').replace('_', '-')}"
            raise RequestError(
                f"{option} was given, and no --model: nothing is run without one.",
                remedy=f"give --model NAME as well, or leave {option} out.",
            )


def _by_hand(
    file: Path | None,
    values: Mapping[str, Any],
    floors: Path,
    framework: str | None,
    json_: bool,
) -> None:
    if file is None:
        raise RequestError(
            "neither a step nor a model was given.",
            remedy="give the FILE of a step, or --model NAME to run engine and trainer here.",
        )
    diagnosis: Diagnosis = _data_of(file, floors).diagnosis
    outcomes = outcomes_of(_words(values["control"]))
    plan = hand_plan(diagnosis, CONTROLS, outcomes, known_framework(framework))
    if json_:
        print_json(plan.to_dict())
    else:
        given = [word for name in _words(values["control"]) for word in ("--control", name)]
        words = ["driftscope", "diagnose", str(file), *given]
        words += [] if framework is None else ["--framework", framework]
        print_plan(plan, shlex.join(words), Console())
    if plan.verdict not in FINE:
        raise typer.Exit(FOUND)


#: Options of the pair itself. The others have defaults, which are there whether given or not.
OF_A_PAIR: Final = ("trainer_model", "adapter", "older_models")


def known_framework(given: str | None) -> Framework | None:
    if given is None:
        return None
    for known in FRAMEWORKS:
        if given.lower().replace("_", "-") == known:
            return known
    raise RequestError(
        f"unknown framework {given!r}.", remedy=f"use {', '.join(FRAMEWORKS)}, or leave it out."
    )


def mount(app: typer.Typer, _probe: typer.Typer) -> None:
    app.command()(diagnose)
