"""A place of this machine: an interpreter and its environment variables, in a child process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.crashes import killed_or_ended
from driftscope_probes.errors import Cancelled, ProbeError
from driftscope_probes.matrix.places.base import PlaceError, threads_of
from driftscope_probes.matrix.work import Work, most_bytes
from driftscope_probes.progress import ProgressSink

MODULE: Final = "driftscope_probes.matrix.run_place"
ANSWER_FILE: Final = "answer.safetensors"


@dataclass(frozen=True, slots=True)
class LocalPlace:
    name: str
    python: Path | None = None  # None: this process's own
    variables: Mapping[str, str] = field(default_factory=dict)
    module: str = MODULE  # drills put another one in its place
    kind: str = "local"
    beside_others: bool = False  # places of one machine would take each other's cores

    @property
    def own_python(self) -> bool:
        return self.python is not None

    def run(self, work: Work, workdir: Path, progress: ProgressSink) -> bytes:
        """Raises ProbeError."""
        python = sys.executable if self.python is None else str(self.python)
        return run_here(work, workdir, progress, python, self.variables, self.module)


def run_here(
    work: Work,
    workdir: Path,
    progress: ProgressSink,
    python: str,
    variables: Mapping[str, str],
    module: str = MODULE,
) -> bytes:
    """The packed answer of a child on this machine. Raises ProbeError."""
    threads = threads_of(variables)
    if threads is not None:
        engine = work.engine.model_copy(update={"threads": threads})
        work = replace(work, engine=engine)
    try:
        child = ChildProcess(
            module,
            work.to_dict(),
            workdir,
            explain_crash=_explain_crash,
            on_progress=progress,
            environment=variables,
            python=python,
        )
    except OSError as error:
        raise PlaceError(
            f"its interpreter could not be started: {error.strerror or error}.",
            remedy="correct the path of the place's interpreter.",
        ) from error
    timer = threading.Timer(work.seconds, child.cancel)
    timer.daemon = True
    timer.start()
    try:
        child.wait()
    except Cancelled as error:
        raise out_of_time(work) from error
    finally:
        timer.cancel()
    return _read(workdir / ANSWER_FILE, work)


def out_of_time(work: Work) -> PlaceError:
    return PlaceError(
        f"it gave no answer within {work.seconds} s.",
        remedy="allow more with place_seconds, or ask for fewer tokens.",
    )


def _read(path: Path, work: Work) -> bytes:
    try:
        with path.open("rb") as stream:
            # One more than is accepted, so that what reads it can tell.
            return stream.read(most_bytes(work) + 1)
    except OSError as error:
        raise PlaceError(
            f"it left no answer: {error.strerror or error}.",
            remedy="install the same version of driftscope at every place.",
        ) from error


def _explain_crash(crash: Crash) -> ProbeError:
    if "No module named" in crash.last_line:
        return PlaceError(
            f"its interpreter lacks a package: {crash.last_line}",
            remedy="install driftscope with its probes and engine there.",
        )
    return killed_or_ended(
        crash,
        PlaceError,
        "process of the place",
        smaller="ask for fewer prompts or tokens, or a smaller model.",
        otherwise="read the end of its log:\n" + crash.log_tail[-2000:],
    )
