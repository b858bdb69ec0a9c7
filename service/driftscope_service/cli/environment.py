"""`driftscope environment`: what could change numerics on this machine, as one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def environment(
    libraries: Annotated[
        bool,
        typer.Option(
            "--libraries", help="Also what torch computes with (oneDNN, MKL, CUDA); imports torch."
        ),
    ] = False,
) -> None:
    """Print hardware, versions and variables of this machine as JSON.

    Keep it beside a run, and hold another machine or week against it: driftscope lint --against.
    """
    # Here, since `driftscope lint` shares this process' start and needs none of it.
    from driftscope_probes.device.environment import environment as plain
    from driftscope_probes.device.environment import night_environment

    found, notes = night_environment() if libraries else (plain(), ())
    for note in notes:
        print(f"driftscope: {note}", file=sys.stderr)
    print(json.dumps(found, indent=1, ensure_ascii=False))
