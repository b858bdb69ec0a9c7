"""`driftscope lint`: settings of engine and trainer, looked at before anything runs.

Exit codes: 0 nothing found, 1 findings, 2 something cannot be read. It imports neither a web
framework nor pydantic nor numpy: it answers in half a second, before every run and in hooks.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Settings, Severity
from driftscope_probes.lint.readers.registry import read, read_text
from driftscope_probes.lint.report import lint_report
from driftscope_probes.lint.rules.registry import ALL_RULES
from driftscope_service.terminal.exits import FOUND
from driftscope_service.terminal.findings import print_report

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
    rules: Annotated[bool, typer.Option("--rules", help="List the rules, and read nothing.")] = False,
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
    documents = [one for path in paths or () for one in documents_of(path)]
    if not documents and command is None and server is None and not env:
        if not against:
            raise typer.BadParameter("give a PATH, --command, --server or --env.")
        env = True  # this machine against last week's
    settings = read_documents(documents)
    if command is not None:
        settings += read_text(COMMAND, command)
    if server is not None:
        settings += read_server(server)
    if env:
        settings += read_environment()
    report = lint_report(settings, left_out)
    comparison = None
    if against:
        comparison = _compared(documents, settings, against, env)
    if json_:
        told = {} if comparison is None else {"against": comparison.to_dict()}
        print(json.dumps({**report.to_dict(), **told}, allow_nan=False, ensure_ascii=False))
    else:
        console = Console()
        print_report(report, console)
        if comparison is not None:
            print_comparison(comparison, console, every=every)
    differs = comparison is not None and bool(comparison.of("yes")) and fail_on != "error"
    if report.at_least(fail_on) or differs:
        raise typer.Exit(FOUND)
