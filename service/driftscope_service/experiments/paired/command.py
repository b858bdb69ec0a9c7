"""`driftscope probe paired`: the grid in the terminal and in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.floor.store import default_folder as default_floors
from driftscope_probes.paired.report import PairedReport
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.trainer.settings import TrainerSettings
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.experiments.paired.diagnoses import judged
from driftscope_service.experiments.paired.html import REPORT_HTML, without_profiles, write_report
from driftscope_service.experiments.paired.terminal import print_report
from driftscope_service.terminal.commands import (
    CHOICES,
    Json,
    checked,
    default_folder,
    fields,
    output_folder,
    print_json,
    request_options,
    run_child,
)
from driftscope_service.terminal.fail_on import (
    FailOn,
    exit_where_a_rule_holds,
    outcome_of,
    with_outcome,
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


def request_of(values: Mapping[str, Any]) -> PairedRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    sides = sides_of(values, TrainerSettings, command="probe paired")
    prompts = read_prompts_option(values["prompts"])
    asked = {**values, **sides, "prompts": prompts}
    return checked(PairedRequest, asked, command="probe paired")


@request_options(
    fields(
        PairedRequest,
        {
            "model": MODEL,
            "trainer_model": "The trainer's own, or an adapter's base. Default: the engine's.",
            "adapter": "Folder of a LoRA adapter that the trainer adds, unmerged.",
            "engine_adapter": "How it gets into the engine: off (--model is run as it is), "
            "merged-fp32, merged-bf16, or unmerged: by vLLM's own LoRA.",
            "engine_dtypes": "Comma-separated.",
            "trainer_dtypes": f"Comma-separated: {TRAINER_DTYPES}",
            "prompts": PROMPTS,
            "chat_template": CHAT_TEMPLATE,
        },
    ),
    OF_BOTH_SIDES,
    fields(PairedRequest, {"resamples": "For the 95 % intervals; 0: none."}),
    OF_SAMPLING,
    OF_ENGINE,
    fields(
        TrainerSettings,
        {
            "attention": CHOICES,
            "micro_batch": "",
            "batching": CHOICES,
            "padding_side": "",
            "backward": "Also compare gradient norms.",
            "headroom": "Measure the room FP16 leaves.",
            "headroom_sequences": "",
        },
        panel="Trainer",
    ),
)
@kept
def paired(
    values: dict[str, Any],
    keep: Keep,
    out: Annotated[Path | None, typer.Option(help="New folder for the report.")] = None,
    fail_on: FailOn = None,
    json_: Json = False,
) -> None:
    """Roll out through the engine, score with the trainer, compare every dtype with every mode."""
    request = request_of(values)
    target = out or default_folder(request.model)
    with output_folder(target) as work:
        asked = {
            "kind": "paired",
            "request": request.model_dump(),
            "floors": str(default_floors().absolute()),
        }
        found = run_child("driftscope_probes.run_probe", asked, work, explain_probe_crash)
        report = PairedReport.read(found)
        write_report(report, work)
    outcome = outcome_of(fail_on, judged(report))
    if json_:
        print_json(with_outcome(without_profiles(report), outcome))
    else:
        print_report(report, Console(), location=str(target / REPORT_HTML))
    keep(report.to_dict(), target)
    exit_where_a_rule_holds(outcome)


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(paired)
