"""`driftscope probe determinism`: which settings of an engine change a bit, and from where on.

The work is done in processes of its own. Exit codes: 0 all axes that ran are equal, 1 one of them
is not, 2 it could not be run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.determinism.report import DeterminismReport
from driftscope_probes.determinism.request import AXES, DeterminismRequest
from driftscope_service.experiments.determinism.terminal import DIFFERING, print_determinism
from driftscope_service.experiments.keeping import Keep, kept
from driftscope_service.terminal.commands import (
    CHOICES,
    FOUND,
    Json,
    checked,
    fields,
    output_folder,
    print_result,
    request_options,
    run_child,
    split,
)

REPORT_JSON = "report.json"


def request_of(values: Mapping[str, Any]) -> DeterminismRequest:
    """Raises RequestError. `values`: of the options, by name of their fields."""
    points = [int(part) if part.isdecimal() else part for part in split(values["values"]) or ()]
    return checked(
        DeterminismRequest,
        {**values, "values": None if values["values"] is None else points},
        command="probe determinism",
        whole="options",
    )


@request_options(
    fields(
        DeterminismRequest,
        {
            "model": "Catalogue name, local folder or Hub id.",
            "axes": f"Comma-separated; default: all but compiled. {', '.join(AXES)}.",
            "values": "Of the one axis named: the reference, then what is compared with it.",
            "bisect": "Look for the onset between values.",
            "explain": "Where batch_size differs: which op makes it, and for what reason.",
        },
    ),
    fields(
        DeterminismRequest,
        {
            "engine_dtypes": "Comma-separated.",
            **dict.fromkeys(("kernels", "engine"), CHOICES),
            "threads": "Default: every core.",
            "attention_split_kv": "vLLM on CPU.",
            **dict.fromkeys(("server_url", "server_model"), "For vllm-server."),
        },
        panel="Engine",
    ),
    fields(
        DeterminismRequest,
        {
            "batch_sizes": "Comma-separated; the smallest is the reference.",
            "prompt_tokens": "Lengths of the prompts, in turn.",
            "max_tokens": "Decoded per request.",
            "samples": "Of thinking_machines.",
            "runs": "Of run_to_run.",
            "run_rows": "Rows that run_to_run repeats; default: 8 and the largest batch size.",
            "seed": "",
        },
        panel="Size",
    ),
)
@kept
def determinism(
    values: dict[str, Any],
    keep: Keep,
    out: Annotated[Path | None, typer.Option(help="New folder for report.json and logs.")] = None,
    json_: Json = False,
) -> None:
    """Ask one engine the same thing in many ways and compare every row bit by bit.

    Exits 1 where an axis differs or does not repeat.
    """
    request = request_of(values)
    with _work_folder(out) as work:
        asked = {"kind": "determinism", "request": request.model_dump(mode="json")}
        report = run_child("driftscope_probes.run_probe", asked, work, explain_probe_crash)
        if out is not None:
            _tidy(report, work)
    typed = DeterminismReport.read(report)
    print_result(report, json_, lambda _, console: print_determinism(typed, console))
    keep(report, out)
    if any(axis.verdict in DIFFERING for axis in typed.axes):
        raise typer.Exit(FOUND)


@contextmanager
def _work_folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
            yield Path(folder)
        return
    with output_folder(out) as folder:
        yield folder


def _tidy(report: dict[str, Any], folder: Path) -> None:
    """Keep only the report and the engines' logs."""
    logs = folder / "logs"
    logs.mkdir()
    for log in sorted(folder.glob("engine-*/log.txt")):
        log.rename(logs / f"{log.parent.name}.txt")
    for left in folder.iterdir():
        if left.is_dir() and left != logs:
            shutil.rmtree(left)
        elif left.is_file():
            left.unlink()
    text = json.dumps(report, allow_nan=False, ensure_ascii=False, indent=1)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8")


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(determinism)
