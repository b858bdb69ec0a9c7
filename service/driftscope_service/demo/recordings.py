"""What was recorded for the demo: pushed steps of runs, and reports of probes.

Steps: RUN.zip with NNNN.safetensors, made by scripts/record_runs.py. Reports: in the folders of
their kinds, made by the commands in docs/demo.md.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from driftscope_service.experiments.kind import Kind

FOLDER = files("driftscope_service").joinpath("demo", "recordings")
#: In the order in which the pages list them: the last one loaded comes first.
RUNS = ("wrong-temperature", "stale-weights", "healthy")


def steps_of(run: str) -> Iterator[tuple[int, bytes]]:
    """Number and push body of every step, in order."""
    with FOLDER.joinpath(f"{run}.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            yield int(name.removesuffix(".safetensors")), archive.read(name)


def report(kind: Kind, name: str) -> dict[str, Any]:
    file = files(kind.package).joinpath("recordings", f"{name}.json")
    loaded = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded
