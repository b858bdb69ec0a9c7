"""Work of the command line on the way to the pages: its report into the data folder that
`driftscope serve` uses, or to a running service.

Storing is an extra: a report that cannot be stored is still printed, its exit code means what it
meant, and what to do is said on stderr.
"""

from __future__ import annotations

import inspect
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import ProbeError
from driftscope_service.terminal.commands import DEFAULT_ROOT, json_text

if TYPE_CHECKING:
    from driftscope_service.experiments.store import Origin

#: Longer ones hold a prompt or a path of no use to a reader of a page.
MOST_COMMAND: Final = 1000
MOST_HOST: Final = 255
#: A password in an address is not for the readers of a report.
_USER_OF_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")

Store = Annotated[
    bool,
    typer.Option(
        "--store/--no-store",
        help="Keep the report where driftscope serve shows it.",
        rich_help_panel="Report",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the service.", show_default="driftscope-data", rich_help_panel="Report"
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="Hand the report to the service at this address instead.", rich_help_panel="Report"
    ),
]
#: Stores a report in a data folder (None: the default one), with the files of a folder that it
#: names; gives its page. The object of the command line's context.
LocalStore: TypeAlias = Callable[[Mapping[str, Any], Path | None, Path | None], str]
#: Of the parameter in which Typer gives the context.
CONTEXT: Final = "keep_context"
#: What a kept command gets in their place, by the name of its parameter.
PARAMETER: Final = "keep"
OPTIONS: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("store", Store, True),
    ("data_dir", DataDir, None),
    ("url", Url, None),
)


@dataclass(frozen=True, slots=True)
class Keep:
    """Call it with the JSON of a report and, where there is one, the folder that has its files."""

    store: bool = True
    data_dir: Path | None = None
    url: str | None = None
    local: LocalStore | None = None  # of the command line that runs

    def __call__(self, report: Mapping[str, Any], folder: Path | None = None) -> None:
        if self.url is None and not self.store:
            return
        try:
            place = self.put(report, folder)
        except ProbeError as error:
            _say(f"the report was not stored: {error}", _left(report, folder))
        except OSError as error:
            remedy = "What to do: make room, or make the data folder writable."
            _say(f"the report was not stored: {error}\n{remedy}", _left(report, folder))
        else:
            _say(place)

    def put(self, report: Mapping[str, Any], folder: Path | None = None) -> str:
        """Where it is then, in words. Raises ProbeError, OSError."""
        return self._handed_in(report) if self.url else self._stored(report, folder)

    def _handed_in(self, report: Mapping[str, Any]) -> str:
        # Here, as below: commands start faster without a web framework and a database.
        from driftscope_service.auth.service_call import call

        assert self.url is not None
        body = json_text({**report, "origin": origin().to_dict()})
        answer = call("POST", self.url, "/v1/reports", body=body).json()
        return f"report: {self.url.rstrip('/')}{answer['links']['page']}"

    def _stored(self, report: Mapping[str, Any], folder: Path | None) -> str:
        assert self.local is not None, "the command line brings the store of a data folder"
        page = self.local(report, self.data_dir, folder)
        serve = "" if self.data_dir is None else f" --data-dir {shlex.quote(str(self.data_dir))}"
        return f"stored for the pages: driftscope serve{serve} shows it at {page}"


def kept(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that say where its report goes, as one argument `keep`.

    A command that has one of the options itself goes on having it.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    names = {parameter.name for parameter in own}
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, annotation, default in OPTIONS
        if name not in names
    ]

    def run(*arguments: Any, **given: Any) -> None:
        said = {name: given[name] for name, _, _ in OPTIONS}
        for parameter in added:
            del given[parameter.name]
        local = given.pop(CONTEXT).obj
        command(*arguments, **given, **{PARAMETER: Keep(**said, local=local)})

    parameters = [parameter for parameter in own if parameter.name != PARAMETER] + added
    only = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter(CONTEXT, only, annotation=typer.Context))
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def origin(argv: Iterable[str] | None = None) -> Origin:
    """Of this process."""
    from driftscope_service.experiments.store import Origin

    program, *rest = sys.argv if argv is None else argv
    line = shlex.join([Path(program).name, *rest])
    command = _USER_OF_ADDRESS.sub("…@", line)
    if len(command) > MOST_COMMAND:
        command = command[: MOST_COMMAND - 1] + "…"
    return Origin(platform.node()[:MOST_HOST] or "unknown", command)


def _left(report: Mapping[str, Any], folder: Path | None) -> str:
    """Where the report can be found all the same, and how it is handed in later."""
    path = None if folder is None else folder / "report.json"
    if path is None or not path.is_file():
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = DEFAULT_ROOT / f"{stamp}-{report['kind']}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(dict(report), allow_nan=False) + "\n")
        except OSError as error:
            return f"It could not be written to {path} either: {error}."
    return f"The report is in {path}; later: driftscope reports add {shlex.quote(str(path))}"


def _say(*lines: str) -> None:
    """On stderr: what the command prints is its result."""
    for line in lines:
        print(line if line.startswith("The report") else f"driftscope: {line}", file=sys.stderr)
