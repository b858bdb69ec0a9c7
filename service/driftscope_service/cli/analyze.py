"""`driftscope analyze FILE`: the comparison of one pushed step, offline.

In: a file in the push format, or prime-rl's token export. Out: tables, or one JSON object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from driftscope_probes.errors import RequestError
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.push import FORMATS, PushedStep, PushError, StepFormat, read_step
from driftscope_service.export.analysis_terminal import print_analysis
from driftscope_service.ingest.analysis import analyze_step


def analyze(
    file: Annotated[Path, typer.Argument(help="A step: .safetensors, .json or prime-rl .jsonl.")],
    step_format: Annotated[
        str | None,
        typer.Option("--format", help=f"{', '.join(FORMATS)}. Default: by the suffix."),
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="For the 95 % intervals; 0: none.")
    ] = DEFAULT_RESAMPLES,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what both sides said about the tokens of one step, from a file."""
    step = _read(file, known_format(step_format))
    analysis = analyze_step(step, resamples=resamples)
    if json_:
        print(json.dumps(analysis, allow_nan=False, ensure_ascii=False))
        return
    print_analysis(file.name, step, analysis, Console())


def _read(file: Path, step_format: StepFormat | None) -> PushedStep:
    try:
        return read_step(file, step_format)
    except PushError as error:
        raise PushError(f"{file}: {error.message}", remedy=error.remedy) from error


def known_format(given: str | None) -> StepFormat | None:
    if given is None:
        return None
    for known in FORMATS:
        if given == known:
            return known
    raise RequestError(f"unknown format {given!r}.", remedy=f"use {', '.join(FORMATS)}.")
