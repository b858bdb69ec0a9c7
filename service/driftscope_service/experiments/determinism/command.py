"""`driftscope probe determinism`: which settings of an engine change a bit, and from where on.

The work is done in processes of its own. Exit code 0 says that it was done, not that all is equal.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_probe_crash
from driftscope_probes.determinism.onset import Value
from driftscope_probes.determinism.request import AXES, DeterminismRequest
from driftscope_probes.errors import RequestError
from driftscope_service.experiments.determinism.terminal import print_determinism
from driftscope_service.terminal.command_output import output_folder, progress_bar

REPORT_JSON = "report.json"
_ENGINE, _SIZE = "Engine", "Size"


def determinism(
    model: Annotated[str, typer.Option(help="Catalogue name, local folder or Hub id.")],
    axes: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated; default: all but compiled. {', '.join(AXES)}."),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="Of the one axis named: the reference, then what is compared with it."),
    ] = None,
    engine_dtypes: Annotated[
        str, typer.Option(help="Comma-separated.", rich_help_panel=_ENGINE)
    ] = "bf16",
    kernels: Annotated[
        str, typer.Option(help="stock, invariant or both.", rich_help_panel=_ENGINE)
    ] = "stock",
    engine: Annotated[
        str, typer.Option(help="vllm, vllm-server or hf.", rich_help_panel=_ENGINE)
    ] = "vllm",
    threads: Annotated[
        int | None, typer.Option(help="Default: every core.", rich_help_panel=_ENGINE)
    ] = None,
    attention_split_kv: Annotated[
        bool | None, typer.Option(help="vLLM on CPU.", rich_help_panel=_ENGINE)
    ] = None,
    server_url: Annotated[
        str | None, typer.Option(help="For vllm-server.", rich_help_panel=_ENGINE)
    ] = None,
    server_model: Annotated[
        str | None, typer.Option(help="For vllm-server.", rich_help_panel=_ENGINE)
    ] = None,
    batch_sizes: Annotated[
        str,
        typer.Option(help="Comma-separated; the smallest is the reference.", rich_help_panel=_SIZE),
    ] = "1,2,4,8,16,32",
    prompt_tokens: Annotated[
        str | None,
        typer.Option(help="Lengths of the prompts, in turn.", rich_help_panel=_SIZE),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Decoded per request.", rich_help_panel=_SIZE)
    ] = 12,
    samples: Annotated[int, typer.Option(help="Of thinking_machines.", rich_help_panel=_SIZE)] = 50,
    runs: Annotated[int, typer.Option(help="Of run_to_run.", rich_help_panel=_SIZE)] = 3,
    seed: Annotated[int, typer.Option(rich_help_panel=_SIZE)] = 0,
    bisect: Annotated[bool, typer.Option(help="Look for the onset between values.")] = True,
    out: Annotated[Path | None, typer.Option(help="New folder for report.json and logs.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask one engine the same thing in many ways and compare every row bit by bit."""
    fields: dict[str, Any] = {
        "model": model,
        "axes": _split(axes),
        "values": _values(values),
        "engine_dtypes": _split(engine_dtypes),
        "kernels": kernels,
        "engine": engine,
        "threads": threads,
        "attention_split_kv": attention_split_kv,
        "server_url": server_url,
        "server_model": server_model,
        "batch_sizes": _split(batch_sizes),
        "max_tokens": max_tokens,
        "samples": samples,
        "runs": runs,
        "seed": seed,
        "bisect": bisect,
    }
    if prompt_tokens is not None:
        fields["prompt_tokens"] = _split(prompt_tokens)
    report = _run(_checked(fields), out)
    if json_:
        print(json.dumps(report, allow_nan=False, ensure_ascii=False))
    else:
        print_determinism(report, Console())


def _run(request: DeterminismRequest, out: Path | None) -> dict[str, Any]:
    with _work_folder(out) as work, progress_bar() as show:
        child = ChildProcess(
            "driftscope_probes.run_probe",
            {"kind": "determinism", "request": request.model_dump(mode="json")},
            work,
            explain_crash=explain_probe_crash,
            on_progress=show,
        )
        report = child.wait()
        if out is not None:
            _tidy(report, work)
    return report


@contextmanager
def _work_folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory(prefix="driftscope-") as folder:
            yield Path(folder)
        return
    with output_folder(out) as folder:
        yield folder


def _tidy(report: dict[str, Any], folder: Path) -> None:
    """Of the work only the report and the engines' logs are worth keeping."""
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


def _checked(fields: dict[str, Any]) -> DeterminismRequest:
    """Validation errors in the words of the command line."""
    try:
        return DeterminismRequest(**fields)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, fault['loc'])) or 'options'}: {fault['msg']}"
            + (f" (given: {fault['input']!r})"[:200] if fault["loc"] else "")
            for fault in error.errors()
        ]
        raise RequestError(
            "\n".join(lines),
            remedy="correct the option; see driftscope probe determinism --help.",
        ) from error


def _split(given: str | None) -> list[str] | None:
    return None if given is None else [part.strip() for part in given.split(",") if part.strip()]


def _values(given: str | None) -> list[Value] | None:
    parts = _split(given)
    if parts is None:
        return None
    return [int(part) if part.isdecimal() else part for part in parts]


def mount(_app: typer.Typer, probe: typer.Typer) -> None:
    probe.command()(determinism)
