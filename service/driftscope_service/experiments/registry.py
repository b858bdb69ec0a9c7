"""All experiments. Adding one takes a line here, and its folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from driftscope_service.experiments.kind import Kind

#: Packages with `kind.KIND` for the service and `command.mount` for the command line, which starts
#: faster without the web framework that the other needs.
EXPERIMENTS: Final[tuple[str, ...]] = (
    "driftscope_service.experiments.paired",
    "driftscope_service.experiments.kernels",
    "driftscope_service.experiments.determinism",
    "driftscope_service.experiments.floor",
    "driftscope_service.experiments.diagnose",
    "driftscope_service.experiments.explain",
    "driftscope_service.experiments.matrix",
    "driftscope_service.experiments.nightly",
)


def load_kinds(experiments: Iterable[str] = EXPERIMENTS) -> Mapping[str, Kind]:
    """By name, in the order of the registry."""
    kinds: list[Kind] = [import_module(f"{package}.kind").KIND for package in experiments]
    return {kind.name: kind for kind in kinds}


def mount_commands(app: typer.Typer, experiments: Iterable[str] = EXPERIMENTS) -> None:
    """`driftscope probe` with a command per probe, and what else experiments add."""
    probe = typer.Typer(no_args_is_help=True)
    probe.callback()(_probe)
    app.add_typer(probe, name="probe")
    for package in experiments:
        import_module(f"{package}.command").mount(app, probe)


def _probe() -> None:
    """Run an experiment on a real model."""
