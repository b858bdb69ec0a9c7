"""Progress of a child process on the terminal's error stream, so that stdout stays clean."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

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
