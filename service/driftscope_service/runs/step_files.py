"""What `analyze` and `push` are given: a file, a file per side, a folder of steps; its columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from driftscope_probes.errors import RequestError
from driftscope_probes.push import FORMATS, StepFormat
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, parse_columns
from driftscope_probes.push.source import StepSource, sources_of

StepPath = Annotated[
    Path,
    typer.Argument(help="A step, in a format of docs/files.md, or a folder of prime-rl's exports."),
]
Format = Annotated[
    str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}. Default: by the content.")
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="OURS=THEIRS,…",
        help="Which column is which, e.g. rollout_logprobs=gen_logp,trainer_logprobs=old_logp; "
        "columns that are not known are left out.",
    ),
]
TrainerFile = Annotated[
    Path | None,
    typer.Option(
        "--trainer",
        help="The trainer's side, where it is in a file of its own: FILE is the rollout's then, an "
        "answer of a server for example.",
    ),
]
MAX_SHOWN_STEPS: Final = 12


def step_sources(
    file: Path,
    step_format: str | None,
    columns: str | None,
    trainer: Path | None,
    step: int | None = None,
) -> list[StepSource]:
    """At least one. step: of a folder, this one only."""
    names = AS_THEY_ARE if columns is None else ColumnNames(parse_columns(columns))
    like = StepSource((), trainer, names, known_format(step_format))
    found = sources_of(file, like)
    if not file.is_dir() or step is None:
        return found
    chosen = [one for one in found if one.step == step]
    if not chosen:
        raise RequestError(f"{file} has no step {step}.", remedy=f"it has {_listed(found)}.")
    return chosen


def _listed(found: Sequence[StepSource]) -> str:
    steps = [str(one.step) for one in found]
    more = f" and {len(steps) - MAX_SHOWN_STEPS} more" if len(steps) > MAX_SHOWN_STEPS else ""
    return ", ".join(steps[:MAX_SHOWN_STEPS]) + more


def known_format(given: str | None) -> StepFormat | None:
    if given is None:
        return None
    for known in FORMATS:
        if given == known:
            return known
    raise RequestError(f"unknown format {given!r}.", remedy=f"use {', '.join(FORMATS)}.")
