"""A parent that is killed while its child works: the child must not outlive it."""

import sys
from pathlib import Path

from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.errors import EngineError
from driftscope_probes.progress import Progress


def explain(crash: Crash) -> EngineError:
    return EngineError(str(crash), remedy="none")


def show(progress: Progress) -> None:
    if progress.stage == "waiting":
        print(progress.stage, flush=True)


child = ChildProcess(
    "step", {"do": "deaf"}, Path(sys.argv[1]), explain_crash=explain, on_progress=show
)
print(child.pid, flush=True)
child.wait()
