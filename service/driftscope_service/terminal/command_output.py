"""What a long command runs, shows and leaves: a child, its progress, a folder of results, JSON."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from driftscope_probes.children import ChildProcess, ExplainCrash
from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.models.cache import home
from driftscope_probes.progress import Progress as Step
from driftscope_probes.progress import ProgressSink

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
            bar.update(task, completed=step.fraction, description=step.stage, detail=step.detail)

        yield show


def _plain_sink() -> ProgressSink:
    shown_stage, shown_at = "", 0.0

    def show(step: Step) -> None:
        nonlocal shown_stage, shown_at
        now = time.monotonic()
        if step.stage != shown_stage or now - shown_at >= PLAIN_INTERVAL_S:
            shown_stage, shown_at = step.stage, now
            print(f"{step.fraction:4.0%} {step.stage} {step.detail}".rstrip(), file=sys.stderr)

    return show


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
