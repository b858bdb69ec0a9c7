"""Entry of the `driftscope` command: every command group is mounted here.

Exit codes: 0 done, 1 it failed for a reason that is printed with its remedy, 2 wrong usage,
130 interrupted, 143 terminated.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from driftscope_probes.errors import ProbeError
from driftscope_service.cli import keys, model, operation
from driftscope_service.experiments.determinism import command as probe_determinism
from driftscope_service.experiments.kernels import command as kernels
from driftscope_service.experiments.nightly import command as nightly
from driftscope_service.experiments.paired import command as probe
from driftscope_service.jobs import command as jobs
from driftscope_service.runs import command as runs

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
probe.app.command()(probe_determinism.determinism)
app.add_typer(probe.app, name="probe")
app.add_typer(kernels.app, name="kernels")
app.add_typer(model.app, name="model")
app.add_typer(jobs.app, name="jobs")
app.add_typer(runs.app, name="runs")
app.add_typer(keys.app, name="keys")
app.add_typer(operation.db_app, name="db")
app.add_typer(operation.demo_app, name="demo")
app.command()(operation.serve)
app.command()(runs.analyze)
app.command()(runs.push)
app.command()(nightly.nightly)

FAILED, TERMINATED = 1, 128 + signal.SIGTERM


@app.callback()
def _driftscope() -> None:
    """Find out where an RL trainer and its inference engine stop agreeing, by how much, and why."""


def main() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        app()
    except ProbeError as error:
        print(f"driftscope: {error}", file=sys.stderr)
        sys.exit(FAILED)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """Leave through the same cleanup as any other exit: no engine and no half a report remain."""
    sys.exit(TERMINATED)
