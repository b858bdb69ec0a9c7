"""Process entry of every probe: request file in, report out.

    python -m driftscope_probes.run_probe WORKDIR

request.json: {"kind": …, "request": what the probe of that kind reads, "runner": module}. The
service writes the runner, whose `run_probe` does the work; by default it is the kind's runner
here. With `model_path`, `request.model` is only the name to show: the caller has resolved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from driftscope_probes.children import child_main
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import Progress, ProgressSink


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    kind = request["kind"]
    runner = request.get("runner", f"driftscope_probes.{kind}.run")
    if not _exists(runner):
        raise RequestError(
            f"unknown probe {kind!r}: there is no {runner}.",
            remedy="install the same version of driftscope for the service and its probes.",
        )
    progress(Progress("importing the probe", 0.0))
    try:
        report: dict[str, Any] = import_module(runner).run_probe(request, workdir, progress)
    except ValidationError as error:
        raise RequestError(str(error), remedy="correct the named fields.") from error
    return report


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    child_main(run)
