"""`driftscope drill`: injects known faults into real pairs and scores what is said of them.

The work is done in a process of its own: the service itself never imports torch.
Exit codes: 0 every bar is reached, 1 one is missed, 2 it could not run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.diagnosis.drill.planted.request import BUDGET_S, MOST_HEALTHY
from driftscope_probes.diagnosis.drill.report import DrillReport
from driftscope_probes.diagnosis.drill.request import (
    DEFAULT_CASES,
    DEFAULT_RUNS,
    MOST_CASES,
    MOST_RUNS,
    DrillRequest,
)
from driftscope_service.cli.drill_controls import drill_controls
from driftscope_service.cli.drill_explain import drill_explain
from driftscope_service.cli.drill_tables import markdown, print_drill
from driftscope_service.terminal.commands import (
    FOUND,
    Json,
    checked,
    output_folder,
    print_result,
    run_child,
)

RUNNER = "driftscope_probes.diagnosis.drill.run"
CONTROLS_PANEL = "Controls (with --controls)"
EXPLAIN_PANEL = "Ops (with --explain)"


def drill(
    cases: Annotated[
        int,
        typer.Option(min=1, max=MOST_CASES, help="Faulty ones; half as many healthy are added."),
    ] = DEFAULT_CASES,
    runs: Annotated[
        int, typer.Option(min=0, max=MOST_RUNS, help="Of twelve steps, diagnosed over all of them.")
    ] = DEFAULT_RUNS,
    causes: Annotated[
        str | None, typer.Option(help="Comma-separated names. Default: all that can be injected.")
    ] = None,
    way: Annotated[
        Literal["a", "b", "both"],
        typer.Option(help="Of injection: each cause has two independent ones, scored apart."),
    ] = "both",
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated: smollm2-135m, tiny-llama, tiny-qwen, tiny-moe."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the page docs/drill.md.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder that keeps the push file of every case.")
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="Folder of an earlier --out: answers its push files again.",
        ),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls",
            help="Plant each fault in a real vLLM engine or trainer and let the planner find it.",
            rich_help_panel=CONTROLS_PANEL,
        ),
    ] = False,
    cause: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated planted causes. Default: all.", rich_help_panel=CONTROLS_PANEL
        ),
    ] = None,
    budget: Annotated[
        int,
        typer.Option(min=1, help="Seconds for a system.", rich_help_panel=CONTROLS_PANEL),
    ] = BUDGET_S,
    healthy: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_HEALTHY,
            help="Run every control on so many healthy pairs instead.",
            rich_help_panel=CONTROLS_PANEL,
        ),
    ] = 0,
    fixed_order: Annotated[
        bool,
        typer.Option(
            help="Run the controls in fixed order, too; else tables say what they would find.",
            rich_help_panel=CONTROLS_PANEL,
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated controls to run on healthy pairs. Default: all.",
            rich_help_panel=CONTROLS_PANEL,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Plant bugs in ops of live pairs; score what explain says of op and reason.",
            rich_help_panel=EXPLAIN_PANEL,
        ),
    ] = False,
    pair: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, as 'llama bf16 prefill'. Default: all.",
            rich_help_panel=EXPLAIN_PANEL,
        ),
    ] = None,
    bug: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated planted bugs. Default: all.", rich_help_panel=EXPLAIN_PANEL
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Inject known faults into real pairs of engine and trainer, and score the diagnosis.

    Exits 1 where a bar is missed: right cause first, among three, healthy pairs, calibration.
    """
    if markdown_file is not None and not markdown_file.resolve().parent.is_dir():
        raise typer.BadParameter(f"{markdown_file}: there is no folder of that name")
    if explain:
        named = {"pairs": pair, "bugs": bug}
        lists = {name: text.split(",") for name, text in named.items() if text is not None}
        asked = {"seed": seed, **lists} | ({"healthy": healthy} if healthy else {})
        if drill_explain(asked, markdown_file, json_).shortfalls():
            raise typer.Exit(FOUND)
        return
    if controls:
        wanted = {
            "causes": cause,
            "seed": seed,
            "budget": budget,
            "healthy": healthy,
            "only": only,
            "fixed_order": fixed_order,
        }
        wanted |= {} if models is None else {"model": models}
        if drill_controls(wanted, markdown_file, json_).shortfalls():
            raise typer.Exit(FOUND)
        return
    asked = {
        "cases": cases,
        "runs": runs,
        "causes": causes,
        "way": way,
        "models": models,
        "seed": seed,
        "again": again,
    }
    result = _run(asked, out)
    report = DrillReport.read(result)
    if markdown_file is not None:
        markdown_file.write_text(markdown(report, datetime.now(UTC).date()), encoding="utf-8")
    print_result(result, json_, lambda _, console: print_drill(report, console))
    if report.score.shortfalls():
        raise typer.Exit(FOUND)


def _run(asked: dict[str, Any], out: Path | None) -> dict[str, Any]:
    request = checked(DrillRequest, asked, command="drill", whole="options")
    with _work_folder(out) as work:
        sent = {
            "kind": "drill",
            "runner": RUNNER,
            "request": request.model_dump(mode="json"),
            "keep": out is not None,
        }
        return run_child("driftscope_probes.run_probe", sent, work, explain_probe_crash)


@contextmanager
def _work_folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
            yield Path(folder)
        return
    with output_folder(out) as folder:
        yield folder
