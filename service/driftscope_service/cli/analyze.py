"""`driftscope analyze FILE`: the comparison of one pushed step, offline.

In: a file in the push format, or prime-rl's token export. Out: tables, or one JSON object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from driftscope_probes.errors import RequestError
from driftscope_probes.mismatch import SideArrays, compare
from driftscope_probes.mismatch.aliases import aliases
from driftscope_probes.mismatch.paired_logprobs import paired_logprobs
from driftscope_probes.mismatch.presets import presets
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.push import FORMATS, PushedStep, PushError, StepFormat, read_step
from driftscope_service.export.analysis_terminal import print_analysis

#: Nine digits fit the int32 in which `behavior_version` is sent; a hash or a time does not count.
MAX_VERSION_DIGITS = 9


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
    step = _read(file, _format(step_format))
    analysis = analyze_step(step, resamples=resamples)
    if json_:
        print(json.dumps(analysis, allow_nan=False, ensure_ascii=False))
        return
    print_analysis(file.name, step, analysis, Console())


def analyze_step(step: PushedStep, *, resamples: int = DEFAULT_RESAMPLES) -> dict[str, Any]:
    """What `analyze --json` prints. Raises RequestError for a bad count of resamples."""
    arrays = (step.rollout_logprobs, step.trainer_logprobs, step.cu_seqlens, step.mask)
    pair = paired_logprobs(*arrays)
    return {
        "comparison": compare(*arrays, resamples=resamples, side=_side_arrays(step)).to_dict(),
        "diagnosis": None,
        "aliases": aliases(pair, advantages=step.advantages, entropy=step.entropy),
        "presets": presets(pair, advantages=step.advantages),
    }


def _side_arrays(step: PushedStep) -> SideArrays:
    """Lags need the trainer's own step beside the rollouts': metadata `weights_version`."""
    version = step.metadata.get("weights_version", "")
    countable = version.isdecimal() and len(version) <= MAX_VERSION_DIGITS
    known = step.behavior_version is not None and countable
    return SideArrays(
        entropy=step.entropy,
        position_ids=step.position_ids,
        turn_ids=step.turn_ids,
        behavior_version=step.behavior_version if known else None,
        train_version=int(version) if known else None,
    )


def _read(file: Path, step_format: StepFormat | None) -> PushedStep:
    try:
        return read_step(file, step_format)
    except PushError as error:
        raise PushError(f"{file}: {error.message}", remedy=error.remedy) from error


def _format(given: str | None) -> StepFormat | None:
    if given is None:
        return None
    for known in FORMATS:
        if given == known:
            return known
    raise RequestError(f"unknown format {given!r}.", remedy=f"use {', '.join(FORMATS)}.")
