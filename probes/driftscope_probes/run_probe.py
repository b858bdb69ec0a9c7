"""Process entry of every probe: request file in, report out.

    python -m driftscope_probes.run_probe WORKDIR

request.json: {"kind": …, "request": what the probe of that kind reads, "runner": module}. The
service writes the runner, whose `run_probe` does the work; by default it is the kind's runner
here. With `model_path`, `request.model` is only the name to show: the caller has resolved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from driftscope_probes.children import child_main
from driftscope_probes.errors import ModelError, RequestError
from driftscope_probes.lint.stated import probe_lint
from driftscope_probes.models.fetch import resolve
from driftscope_probes.progress import Progress, ProgressSink

#: A report of kernels or a night has no settings of an engine and a trainer.
OF_A_MODEL: Final = {"model", "request", "environment"}


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
    return report | ({"lint": _lint(request, report)} if OF_A_MODEL <= report.keys() else {})


def _lint(request: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the model that was loaded, of what was asked of both sides, and of this machine."""
    asked, folder = report["request"], None
    # The probe has loaded it. One that is gone since costs its findings, not the report.
    with suppress(ModelError):
        folder = resolve(request.get("model_path") or asked["model"]).path
    return probe_lint(asked, report["environment"], folder).to_dict()


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    child_main(run)
