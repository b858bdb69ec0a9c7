"""`driftscope lint`: settings of engine and trainer, looked at before anything runs.

Exit codes: 0 nothing found, 1 findings, 2 something cannot be read. It imports neither a web
framework nor numpy: it answers in half a second, before every run and in hooks.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.against import compare_hosts
from driftscope_probes.lint.base import Settings
from driftscope_probes.lint.host import (
    Host,
    host_of,
    host_of_environment,
    host_of_settings,
    settings_of_environment,
)
from driftscope_probes.lint.readers.registry import documents, read, read_text
from driftscope_probes.lint.report import lint_report
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_service.terminal.differences import print_comparison
from driftscope_service.terminal.exits import FOUND
from driftscope_service.terminal.findings import print_report
from driftscope_service.terminal.listing import print_list

#: What findings of a command line, which has no file, give as their place.
COMMAND: Final = "command"


def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of models, configurations of trainers, engines' arguments, variables.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another host or week: what differs from PATH. Repeatable."),
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="A command line in quotes, such as 'vllm serve …'.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="A running vLLM server, asked what it tells.")
    ] = None,
    env: Annotated[
        bool, typer.Option("--env", help="This shell's variables and this machine.")
    ] = False,
    fail_on: Annotated[
        Literal["error", "warning", "note"], typer.Option(help="The least that exits with 1.")
    ] = "note",
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="Leave a rule out. Repeatable.")
    ] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="List the rules, and read nothing.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --against: also what cannot change numerics.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find settings of an engine and its trainer that are known to make them disagree.

    Files are read, never run. Later ones override earlier ones.
    """
    left_out = [_known(name) for name in ignore or ()]
    if rules:
        return _list_rules(json_)
    if not paths and command is None and server is None and not env:
        if not against:
            raise typer.BadParameter("give a PATH, --command, --server or --env.")
        env = True  # this machine against last week's
    here = _of_paths(paths or (), alone=not against)
    settings = here.settings
    if command is not None:
        settings += read_text(COMMAND, command)
    if server is not None:
        settings += _of_server(server)
    told = _environment() if env else None
    if told is not None:
        settings += settings_of_environment(told)
    report = lint_report(settings, left_out)
    comparison = None
    if against:
        host = here.host + host_of_settings(settings)
        if told is not None:
            host += host_of_environment(told)
        comparison = compare_hosts(host, _of_paths(against, alone=False).host)
    if json_:
        differs = {} if comparison is None else {"against": comparison.to_dict()}
        print(json.dumps({**report.to_dict(), **differs}, allow_nan=False, ensure_ascii=False))
    else:
        console = Console()
        if report.settings or comparison is None:
            print_report(report, console)
        if comparison is not None:
            print_comparison(comparison, console, every=every)
    other = comparison is not None and bool(comparison.of("yes")) and fail_on != "error"
    if report.at_least(fail_on) or other:
        raise typer.Exit(FOUND)


def _of_server(address: str) -> Settings:
    # Here, as below, since a lint of files starts faster without it.
    from driftscope_probes.lint.readers.vllm_server import read_server

    return read_server(address)


def _environment() -> dict[str, Any]:
    from driftscope_probes.device.environment import environment

    return environment()


@dataclass(frozen=True, slots=True)
class _Read:
    settings: Settings
    host: Host


def _of_paths(paths: Iterable[Path], *, alone: bool) -> _Read:
    """`alone`: only settings are looked at, so a list of packages is not understood."""
    settings, host = Settings(), Host(())
    for path in paths:
        told = Host(()) if alone else host_of(documents(path))
        try:
            settings += read(path)
        except RequestError:
            if not told.facts:
                raise
        host += told
    return _Read(settings, host)


def _known(name: str) -> str:
    """Raises typer.BadParameter: a misspelt rule would go on being found."""
    names = [rule.name for rule in ALL_RULES]
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise typer.BadParameter(f"there is no rule {name!r}: {hint}--rules lists them.")


def _list_rules(as_json: bool) -> None:
    if as_json:
        names = ("name", "severity", "why", "remedy", "source", "cause")
        rows = [{name: getattr(rule, name) for name in names} for rule in ALL_RULES]
        print(json.dumps({"rules": rows}, ensure_ascii=False))
        return
    print_list(
        ("rule", "severity", "what happens"), ((r.name, r.severity, r.why) for r in ALL_RULES)
    )
