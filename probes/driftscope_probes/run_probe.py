"""Process entry of every probe: request file in, report out.

    python -m driftscope_probes.run_probe WORKDIR

request.json: {"kind": "paired", "request": PairedRequest, "model_path": folder or null},
{"kind": "kernels", "request": KernelsRequest}, {"kind": "determinism", "request":
DeterminismRequest, "model_path": folder or null} or {"kind": "nightly", "request": {"config": file
or null, "history": folder}}. With `model_path`, `request.model` is only the
name to show: who calls has resolved it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from driftscope_probes.children import child_main
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.errors import RequestError
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.progress import ProgressSink

#: Of the report of a kernel check; a paired report carries its own.
KERNELS_SCHEMA = "1"


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    kind = request["kind"]
    if kind not in _PROBES:
        raise RequestError(
            f"unknown probe {kind!r}.", remedy=f"the probes are: {', '.join(_PROBES)}."
        )
    try:
        return _PROBES[kind](request, workdir, progress)
    except ValidationError as error:
        raise RequestError(str(error), remedy="correct the named fields.") from error


def _paired(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    paired = PairedRequest(**request["request"])
    from driftscope_probes.paired.run import run_paired

    folder = request.get("model_path")
    report = run_paired(paired, workdir, progress, model_path=Path(folder) if folder else None)
    return report.to_dict()


def _kernels(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """The JSON of `kernels check`, with what was asked and when."""
    asked = KernelsRequest(**request["request"]).model_dump(mode="json")
    from driftscope_probes.kernels.run import run as run_kernels

    began = datetime.now(UTC)
    result = run_kernels({"action": "check", **asked}, workdir, progress)
    return {
        "schema_version": KERNELS_SCHEMA,
        "kind": "kernels",
        "created_at": began.isoformat(timespec="seconds"),
        "request": asked,
        **result,
    }


def _determinism(
    request: Mapping[str, Any], workdir: Path, progress: ProgressSink
) -> dict[str, Any]:
    asked = DeterminismRequest(**request["request"])
    from driftscope_probes.determinism.run import run_determinism

    folder = request.get("model_path")
    report = run_determinism(asked, workdir, progress, Path(folder) if folder else None)
    return report.to_dict()


def _nightly(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """Of the service: the operator's file or the shipped one; history in the data folder."""
    asked = request["request"]
    from driftscope_probes.nightly.request import DEFAULT_FILE, read_config
    from driftscope_probes.nightly.run import run_nightly

    config = read_config(Path(asked["config"]) if asked["config"] else DEFAULT_FILE)
    return run_nightly(config, Path(asked["history"]), progress).to_dict()


Probe = Callable[[Mapping[str, Any], Path, ProgressSink], dict[str, Any]]
_PROBES: dict[str, Probe] = {
    "paired": _paired,
    "kernels": _kernels,
    "determinism": _determinism,
    "nightly": _nightly,
}


if __name__ == "__main__":
    child_main(run)
