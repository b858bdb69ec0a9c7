"""What commands share: options, progress bars, reports written to files."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from driftscope_probes.children import ChildProcess, ExplainCrash
from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.models.cache import home
from driftscope_probes.progress import Progress as Step
from driftscope_probes.progress import ProgressSink, Told
from driftscope_service.terminal.exits import COULD_NOT_RUN as COULD_NOT_RUN
from driftscope_service.terminal.exits import FOUND as FOUND

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = TypeVar("Model", bound=BaseModel)

#: Types that an option parses itself; every other field is given as text.
_SCALARS = (bool, int, float)
#: Help that lists the values of a Literal: "a, b or c."
CHOICES = "<choices>"
#: A longer default would crowd out the help.
MOST_SHOWN = 20


def fields(
    model: type[BaseModel],
    helps: Mapping[str, str],
    *,
    panel: str | None = None,
    flags: Mapping[str, str] | None = None,
) -> list[inspect.Parameter]:
    """One option for every name in `helps`, in that order. `flags` names them otherwise."""
    return [
        _parameter(name, model.model_fields[name], panel, text, (flags or {}).get(name))
        for name, text in helps.items()
    ]


def _parameter(
    name: str, field: FieldInfo, panel: str | None, text: str, flag: str | None
) -> inspect.Parameter:
    kinds = [part for part in _parts(field.annotation) if part is not NoneType]
    kind: Any = kinds[0] if len(kinds) == 1 and kinds[0] in _SCALARS else str
    default = inspect.Parameter.empty if field.is_required() else field.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    elif kind is str and isinstance(default, int):
        default = str(default)
    option = typer.Option(
        *([flag] if flag else []),
        help=_choices(kinds[0]) if text == CHOICES else text or None,
        show_default=default is None or len(str(default)) <= MOST_SHOWN,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _parts(annotation: Any) -> tuple[Any, ...]:
    """`Literal[…] | None` is a Union, `int | None` a UnionType."""
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _choices(literal: Any) -> str:
    assert get_origin(literal) is Literal
    *first, last = get_args(literal)
    return f"{', '.join(first)} or {last}."


def request_options(
    *groups: Iterable[inspect.Parameter],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command gets the values of these options as its first argument, by name of the field."""
    options = [option for group in groups for option in group]

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def run(**values: Any) -> None:
            rest = {option.name: values.pop(option.name) for option in own}
            command(values, **rest)

        parameters = options + [o.replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in own]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        return run

    return with_options


def checked(
    model: type[Model], values: Mapping[str, Any], *, command: str, whole: str | None = None
) -> Model:
    """Raises RequestError in the words of the command line.

    `whole` is what a fault of no single field is said of: by default the model with what it got.
    """
    own = {
        name: split(values[name]) if _is_list(field) else values[name]
        for name, field in model.model_fields.items()
        if name in values
    }
    try:
        return model(**own)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            line = f"{'.'.join(map(str, fault['loc'])) or whole or model.__name__}: {fault['msg']}"
            if fault["loc"] or whole is None:
                line += f" (given: {fault['input']!r})"
            lines.append(line[:500])
        raise RequestError(
            "\n".join(lines), remedy=f"correct the option; see driftscope {command} --help."
        ) from error


def _is_list(field: FieldInfo) -> bool:
    return any(get_origin(part) is list for part in _parts(field.annotation))


def split(value: Any) -> Any:
    """The parts of a comma-separated text; anything else unchanged."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


#: Without a terminal (CI, a log file) one line per stage, and then one in this many seconds.
PLAIN_INTERVAL_S = 10.0


@contextmanager
def progress_bar() -> Iterator[ProgressSink]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_sink()
        return
    columns = (BarColumn(), "{task.percentage:>3.0f}%", TimeElapsedColumn())
    text = TextColumn("{task.description} {task.fields[detail]}")
    with Progress(*columns, text, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0, detail="")

        def show(step: Step) -> None:
            for line in told_lines(step):
                bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=step.fraction, description=step.stage, detail=step.detail)

        yield show


def _plain_sink() -> ProgressSink:
    shown_stage, shown_at = "", 0.0

    def show(step: Step) -> None:
        nonlocal shown_stage, shown_at
        lines = told_lines(step)
        for line in lines:
            print(line, file=sys.stderr)
        if lines:
            shown_stage = step.stage  # the line has said it
            return
        now = time.monotonic()
        if step.stage != shown_stage or now - shown_at >= PLAIN_INTERVAL_S:
            shown_stage, shown_at = step.stage, now
            print(f"{step.fraction:4.0%} {step.stage} {step.detail}".rstrip(), file=sys.stderr)

    return show


def told_lines(step: Step) -> list[str]:
    """What a probe tells of its own reasoning: why this is done, and what came of it."""
    told = step.told if isinstance(step, Told) else {}
    why, found = told.get("why"), told.get("found")
    return [*([str(why)] if why else []), *([f"  {found}"] if found else [])]


def run_child(
    module: str, request: Mapping[str, Any], workdir: Path, explain_crash: ExplainCrash
) -> dict[str, Any]:
    """The result of a child process whose progress is shown meanwhile."""
    with progress_bar() as show:
        child = ChildProcess(
            module, request, workdir, explain_crash=explain_crash, on_progress=show
        )
        return child.wait()


def json_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def print_json(value: Mapping[str, Any]) -> None:
    print(json_text(value))


def print_result(
    result: Mapping[str, Any], json_: bool, printer: Callable[[Any, Console], object]
) -> None:
    """As one JSON object, or as `printer` shows it in the terminal."""
    if json_:
        print_json(result)
    else:
        printer(result, Console())


DEFAULT_ROOT = Path("driftscope-reports")


def default_folder(model: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return DEFAULT_ROOT / f"{stamp}-{Path(model).name}"


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """Yield a work folder next to `target`; it becomes `target` only when the block succeeds.

    On failure nothing is left but a copy of the logs under $DRIFTSCOPE_HOME/logs/last-failure.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(
            f"{target} exists already.", remedy="give --out a folder that is new or empty."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    work.chmod(0o755)
    try:
        yield work
        if target.exists():
            target.rmdir()
        work.replace(target)
    except ProbeError as error:
        error.remedy += f"\nLogs: {_keep_logs(work)}"
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep_logs(work: Path) -> Path:
    kept = home() / "logs" / "last-failure"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in work.rglob("log.txt"):
        name = "-".join(log.relative_to(work).parts)
        shutil.copyfile(log, kept / name)
    return kept
