"""`driftscope explain`: which op makes the gap between engine and trainer, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel
from rich.console import Console

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.durable_file import write_whole
from driftscope_probes.engines.settings import SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.explain.dumps.run import explain_dumps
from driftscope_probes.explain.request import MAX_TOKENS, ExplainRequest, ExplainTrainer
from driftscope_probes.explain.request import PROMPTS as FEW
from driftscope_probes.explain.server.request import MAX_TOKENS as MORE_TOKENS
from driftscope_probes.explain.server.request import PROMPTS as MORE
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_service.experiments.explain.doors import (
    RUNNER,
    SERVER_RUNNER,
    refuse_of_a_server,
    refuse_with_dumps,
    server_request,
)
from driftscope_service.experiments.explain.html import render
from driftscope_service.experiments.explain.reading import AnyReport, read_report
from driftscope_service.experiments.explain.server_terminal import print_any
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.terminal.commands import (
    CHOICES,
    Json,
    checked,
    fields,
    print_json,
    progress_bar,
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
    without_default,
)
from driftscope_service.terminal.prompt_file import read_prompts_option

OF_SERVER: Final = "A server instead of an engine here"


#: Two have a default of their own behind a URL, so the command line says none.
OPTIONS: Final = (
    *fields(
        ExplainRequest,
        {
            "trainer_model": "The trainer's own. Default: the engine's.",
            "engine_dtype": CHOICES,
            "trainer_dtype": TRAINER_DTYPES,
            "phase": "prefill: the engine reads prompts and responses in one go; decode: token by "
            "token, with its key-value cache.",
            "full_vocab": "Compare whole distributions too.",
            "backward": "Also the gradients of the trainer's ops.",
        },
    ),
    *without_default(
        fields(
            ExplainRequest,
            {"prompts": f"{PROMPTS} Default: {FEW}; behind a URL {MORE}."},
        )
    ),
    *fields(ExplainRequest, {"chat_template": CHAT_TEMPLATE}),
    *OF_BOTH_SIDES,
    *without_default(
        fields(
            SamplingSettings,
            {"max_tokens": f"Default: {MAX_TOKENS}; behind a URL {MORE_TOKENS}."},
            panel="Sampling",
        )
    ),
    *(option for option in OF_SAMPLING if option.name != "max_tokens"),
    *(option for option in OF_ENGINE if option.name not in ("server_url", "server_model")),
    *fields(ExplainTrainer, {"attention": CHOICES}, panel="Trainer"),
    *fields(
        ServerExplainRequest,
        {
            "server_model": "Its name on the server.",
            "longest": "Tokens of the texts that are cut.",
            "budget_s": "Seconds; no measurement starts later.",
        },
        panel=OF_SERVER,
        flags={"budget_s": "--budget"},
    ),
)


def request_of(values: Mapping[str, Any]) -> ExplainRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    said: dict[str, Any] = {"max_tokens": MAX_TOKENS, "prompts": str(FEW)} | _said(values)
    if said["kind"] == "vllm-server":
        raise RequestError(
            "a server tells no tensors between its ops.",
            remedy="give --engine-server URL instead of --engine vllm-server.",
        )
    sides = sides_of(said, ExplainTrainer, command="explain")
    asked = {**said, **sides, "prompts": read_prompts_option(said["prompts"])}
    return checked(ExplainRequest, asked, command="explain")


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@request_options(OPTIONS)
@kept
def explain(
    values: dict[str, Any],
    keep: Keep,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    dumps: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            help="Two folders of captured tensors, compared without running a model.",
        ),
    ] = None,
    engine_server: Annotated[
        str | None,
        typer.Option(
            help="Base URL of a vLLM server that tells log-probabilities alone.",
            rich_help_panel=OF_SERVER,
        ),
    ] = None,
    other_models: Annotated[
        list[str] | None,
        typer.Option(
            "--other-model",
            help="Weights that the server might hold instead.",
            rich_help_panel=OF_SERVER,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file for the report.")] = None,
    json_: Json = False,
) -> None:
    """Find the ops that make engine and trainer differ, and for what reason.

    Exits 0 where every op is bitwise equal, 1 where one differs, 2 where the two sides cannot be
    compared.
    """
    if out is not None and out.is_dir():
        raise RequestError(f"{out} is a folder.", remedy="give --out the name of an HTML file.")
    given = {**_given(values), **({"other_models": other_models} if other_models else {})}
    if model is not None:
        given["model"] = model
    report: AnyReport
    if dumps is not None:
        refuse_with_dumps({**given, **({"engine_server": engine_server} if engine_server else {})})
        report = _of_dumps(*dumps)
    elif engine_server is not None:
        request = server_request(engine_server, given)
        report = _measured(request, runner=SERVER_RUNNER)
    else:
        refuse_of_a_server(given)
        report = _measured(request_of({**values, "model": _required(model)}))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, render(report))
    if json_:
        print_json(report.to_dict())
    else:
        print_any(report, Console(), location=None if out is None else str(out))
    keep(report.to_dict())
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something else than their default."""
    return {one.name: values[one.name] for one in OPTIONS if values[one.name] != one.default}


def _required(model: str | None) -> str:
    if model is None:
        raise RequestError(
            "no model was given.",
            remedy="give --model NAME, or --dumps A B for tensors that were captured elsewhere.",
        )
    return model


def _of_dumps(left: Path, right: Path) -> AnyReport:
    with progress_bar() as show:
        return explain_dumps(left, right, show)


def _measured(request: BaseModel, *, runner: str = RUNNER) -> AnyReport:
    asked = {"kind": "explain", "request": request.model_dump(mode="json"), "runner": runner}
    with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
        return read_report(
            run_child("driftscope_probes.run_probe", asked, Path(folder), explain_probe_crash)
        )


def mount(app: typer.Typer, _probe: typer.Typer) -> None:
    app.command()(explain)
