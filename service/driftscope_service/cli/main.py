"""Entry of the `driftscope` command, with the commands that operate a service.

Exit codes, for every command: 0 done and nothing to say; 1 a finding; 2 wrong usage, or it could
not be carried out, with the reason and its remedy on standard error; 130 interrupted, 143
terminated.
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from driftscope_probes.errors import ProbeError
from driftscope_probes.plural import counted
from driftscope_service.cli.local_store import DataFolders
from driftscope_service.experiments.registry import EXPERIMENTS, mount_commands
from driftscope_service.terminal.exits import COULD_NOT_RUN


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; beyond loopback an API key has to exist.",
            show_default="127.0.0.1",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes any free one.", show_default="8321")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Database, jobs and reports.", show_default="driftscope-data"),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            help="Where probes run: `local`, or `ray`, a cluster.",
            metavar="[local|ray]",
            show_default="local",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of a running Ray cluster: HOST:PORT, ray://HOST:PORT or auto."),
    ] = None,
) -> None:
    """Run the service: API, /metrics and the jobs, until Ctrl-C.

    Every other setting is a DRIFTSCOPE_* variable; the options here go before them.
    """
    # Until settle_memory(): what the imports make stays, and collections on the way, which find
    # nothing, are a sixth of the start.
    gc.disable()
    # Here, since the other commands do not need a web framework and start faster without.
    from driftscope_service.server import run_server
    from driftscope_service.settings import load_settings

    settings = load_settings(
        host=host, port=port, data_dir=data_dir, executor=executor, ray_address=ray_address
    )
    run_server(settings)


demo_app = typer.Typer(no_args_is_help=True)


@demo_app.callback()
def _demo() -> None:
    """Recorded data, for a first look at the pages and dashboards."""


@demo_app.command()
def load(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the service.", show_default="driftscope-data"),
    ] = None,
) -> None:
    """Load three recorded training runs, a probe of each kind and two nights.

    Then `driftscope serve` with the same folder shows full pages. Loading again changes nothing.
    """
    # Here, since the other commands do not need a web framework and start faster without.
    from driftscope_service.demo.load import load_demo
    from driftscope_service.settings import load_settings
    from driftscope_service.terminal.commands import progress_bar

    settings = load_settings(data_dir=data_dir)
    with progress_bar() as show:
        loaded = load_demo(settings, show)
    for line in loaded.said:
        typer.echo(line)
    typer.echo(
        f"{counted(loaded.runs, 'run')} with {counted(loaded.steps, 'step')}, "
        f"{counted(loaded.reports, 'new report')} in "
        f"{settings.data_dir}. Now: driftscope serve --data-dir {settings.data_dir}"
    )


TERMINATED: Final = 128 + signal.SIGTERM
#: Adds commands to an app. Imports within, so that a command waits for no other's.
Part = Callable[[typer.Typer], None]


def _serve(app: typer.Typer) -> None:
    app.command()(serve)


def _backup(app: typer.Typer) -> None:
    from driftscope_service.cli import backup

    app.add_typer(backup.db_app, name="db")
    app.command("backup")(backup.make)
    app.command("restore")(backup.restore)


def _demo_part(app: typer.Typer) -> None:
    app.add_typer(demo_app, name="demo")


def _commands(module: str, *names: str) -> Part:
    """Functions of the module, each under its own name."""

    def add(app: typer.Typer) -> None:
        for name in names:
            app.command()(getattr(import_module(module), name))

    return add


def _group(module: str, name: str) -> Part:
    def add(app: typer.Typer) -> None:
        app.add_typer(import_module(module).app, name=name)

    return add


RUNS: Final = _commands("driftscope_service.runs.command", "analyze", "push")
#: By the first word of the command line, in the order of the help. Experiments bring their own.
BEFORE: Final[Mapping[str, Part]] = {
    "serve": _serve,
    "analyze": RUNS,
    "push": RUNS,
    "compare": _commands("driftscope_service.runs.compare_command", "compare"),
    "drill": _commands("driftscope_service.cli.drill", "drill"),
    "audit": _commands("driftscope_service.cli.audit", "audit"),
    "lint": _commands("driftscope_service.cli.lint", "lint"),
    "environment": _commands("driftscope_service.cli.environment", "environment"),
    "fingerprint": _group("driftscope_service.experiments.fingerprint.command", "fingerprint"),
}
AFTER: Final[Mapping[str, Part]] = {
    "model": _group("driftscope_service.cli.model", "model"),
    "jobs": _group("driftscope_service.jobs.command", "jobs"),
    "reports": _group("driftscope_service.experiments.reports_command", "reports"),
    "runs": _group("driftscope_service.runs.list_command", "runs"),
    "keys": _group("driftscope_service.cli.keys", "keys"),
    "prometheus": _group("driftscope_service.cli.prometheus", "prometheus"),
    "webhook": _group("driftscope_service.cli.webhook", "webhook"),
    "db": _backup,
    "backup": _backup,
    "restore": _backup,
    "demo": _demo_part,
}


def build_app(experiments: Sequence[str] = EXPERIMENTS) -> typer.Typer:
    app = _empty_app(experiments)
    for part in dict.fromkeys(BEFORE.values()):
        part(app)
    mount_commands(app, experiments)
    for part in dict.fromkeys(AFTER.values()):
        part(app)
    return app


def app_of(words: Sequence[str]) -> typer.Typer:
    """The commands that a command line may mean: one where its first words name it, else all.

    All of them together take a second and a half to load.
    """
    first, second = (*words, "", "")[:2]
    part = {**BEFORE, **AFTER}.get(first)
    name = second if first == "probe" else first
    asked = [package for package in EXPERIMENTS if package.rpartition(".")[2] == name]
    if part is None and not asked:
        return build_app()
    app = _empty_app(EXPERIMENTS)
    if part is not None:
        part(app)
    else:
        mount_commands(app, asked)
    return app


def _empty_app(experiments: Sequence[str]) -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Of every command below as well.
        context_settings={"help_option_names": ["-h", "--help"], "obj": DataFolders(experiments)},
    )
    app.callback()(_driftscope)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        # Here, since it loads a reader of mail, for a quarter of the time that a lint takes.
        from importlib.metadata import version

        typer.echo(f"driftscope {version('driftscope')}")
        raise typer.Exit


def _driftscope(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Find out where an RL trainer and its inference engine stop agreeing, by how much, and why."""


def main() -> None:
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        app_of(sys.argv[1:])()
    except ProbeError as error:
        print(f"driftscope: {error}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    except Exception:
        # Python would end with 1, which a script reads as a finding.
        traceback.print_exc()
        print(
            "driftscope: this is a bug of driftscope; nothing above says what to correct.\nWhat to "
            "do: report it with the lines above.",
            file=sys.stderr,
        )
        sys.exit(COULD_NOT_RUN)


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """Leave through the same cleanup as any other exit: no engine and no half a report remain."""
    sys.exit(TERMINATED)
