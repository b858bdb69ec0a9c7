"""Process entry of every probe: request file in, report out.

    python -m driftscope_probes.run_probe WORKDIR

request.json: {"kind": "paired", "request": PairedRequest, "model_path": folder or null}. With
`model_path`, `request.model` is only the name to show: who calls has resolved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from driftscope_probes.child_process import child_main
from driftscope_probes.errors import RequestError
from driftscope_probes.paired_request import PairedRequest
from driftscope_probes.progress import ProgressSink


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    if request["kind"] != "paired":
        raise RequestError(f"unknown probe {request['kind']!r}.", remedy="the probes are: paired.")
    try:
        paired = PairedRequest(**request["request"])
    except ValidationError as error:
        raise RequestError(str(error), remedy="correct the named fields.") from error
    from driftscope_probes.paired import run_paired

    folder = request.get("model_path")
    return run_paired(paired, workdir, progress, model_path=Path(folder) if folder else None)


if __name__ == "__main__":
    child_main(run)
