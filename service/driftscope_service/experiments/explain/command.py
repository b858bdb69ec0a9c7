"""`driftscope explain`: which op makes the gap between engine and trainer, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import RequestError
from driftscope_probes.explain.report import ExplainReport
from driftscope_probes.explain.request import ExplainRequest, ExplainTrainer
from driftscope_service.experiments.explain.html import render
from driftscope_service.experiments.explain.terminal import print_report
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.terminal.commands import (
    CHOICES,
    Json,
    checked,
    fields,
    print_json,
    request_options,
    run_child,
)
from driftscope_service.terminal.pair_options import (
    CHAT_TEMPLATE,
    MODEL,
    OF_BOTH_SIDES,
    OF_ENGINE,
    OF_SAMPLING,
    PROMPTS,
    TRAINER_DTYPES,
    sides_of,
)
from driftscope_service.terminal.prompt_file import read_prompts_option


def request_of(values: Mapping[str, Any]) -> ExplainRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    sides = sides_of(values, ExplainTrainer, command="explain")
    asked = {**values, **sides, "prompts": read_prompts_option(values["prompts"])}
    return checked(ExplainRequest, asked, command="explain")


@request_options(
    fields(
        ExplainRequest,
        {
            "model": MODEL,
            "trainer_model": "The trainer's own. Default: the engine's.",
            "engine_dtype": CHOICES,
            "trainer_dtype": TRAINER_DTYPES,
            "phase": "prefill: the engine reads prompts and responses in one go; decode: token by "
            "token, with its key-value cache.",
            "full_vocab": "Compare whole distributions too.",
            "backward": "Also the gradients of the trainer's ops.",
            "prompts": PROMPTS,
            "chat_template": CHAT_TEMPLATE,
        },
    ),
    OF_BOTH_SIDES,
    OF_SAMPLING,
    OF_ENGINE,
    fields(ExplainTrainer, {"attention": CHOICES}, panel="Trainer"),
)
@kept
def explain(
    values: dict[str, Any],
    keep: Keep,
    out: Annotated[Path | None, typer.Option(help="HTML file for the report.")] = None,
    json_: Json = False,
) -> None:
    """Find the ops that make engine and trainer differ, and for what reason.

    Exits 0 where every op is bitwise equal, 1 where one differs, 2 where the two sides cannot be
    compared.
    """
    request = request_of(values)
    if out is not None and out.is_dir():
        raise RequestError(f"{out} is a folder.", remedy="give --out the name of an HTML file.")
    report = _measured(request)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, render(report))
    if json_:
        print_json(report.to_dict())
    else:
        print_report(report, Console(), location=None if out is None else str(out))
    keep(report.to_dict())
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _measured(request: ExplainRequest) -> ExplainReport:
    asked = {"kind": "explain", "request": request.model_dump(mode="json")}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return ExplainReport.read(
            run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)
        )


def mount(app: typer.Typer, _probe: typer.Typer) -> None:
    app.command()(explain)
