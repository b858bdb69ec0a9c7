"""Entry of the `driftscope` command: every command group is mounted here.

Exit codes: 0 done, 1 it failed for a reason that is printed with its remedy, 2 wrong usage,
130 interrupted, 143 terminated.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from driftscope_probes.errors import ProbeError
from driftscope_service.cli import keys, model, operation
from driftscope_service.experiments.registry import EXPERIMENTS, mount_commands
from driftscope_service.jobs import command as jobs
from driftscope_service.runs import command as runs

FAILED, TERMINATED = 1, 128 + signal.SIGTERM


def build_app(experiments: Sequence[str] = EXPERIMENTS) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_driftscope)
    app.command()(operation.serve)
    app.command()(runs.analyze)
    app.command()(runs.push)
    mount_commands(app, experiments)
    app.add_typer(model.app, name="model")
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(runs.app, name="runs")
    app.add_typer(keys.app, name="keys")
    app.add_typer(operation.db_app, name="db")
    app.add_typer(operation.demo_app, name="demo")
    return app


def _driftscope() -> None:
    """Find out where an RL trainer and its inference engine stop agreeing, by how much, and why."""


def main() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        build_app()()
    except ProbeError as error:
        print(f"driftscope: {error}", file=sys.stderr)
        sys.exit(FAILED)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """Leave through the same cleanup as any other exit: no engine and no half a report remain."""
    sys.exit(TERMINATED)
