"""What was recorded for the demo: pushed steps of runs, and reports of probes.

Steps: RUN.zip with NNNN.safetensors, made by scripts/record_runs.py. Reports: KIND*.json, made by
the commands in docs/demo.md. In: nothing. Out: bytes and JSON, as a service would be sent them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

FOLDER = files("driftscope_service").joinpath("demo", "recordings")
#: In the order in which the pages list them: the last one loaded comes first.
RUNS = ("wrong-temperature", "stale-weights", "healthy")


def steps_of(run: str) -> Iterator[tuple[int, bytes]]:
    """Number and push body of every step, in order."""
    with FOLDER.joinpath(f"{run}.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            yield int(name.removesuffix(".safetensors")), archive.read(name)


def report(name: str) -> dict[str, Any]:
    loaded = json.loads(FOLDER.joinpath(f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded
