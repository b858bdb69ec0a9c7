"""Tasks on the nodes of a Ray cluster: the analysis of one shard, and the merging of all.

What they tell the driver is JSON text, errors of users included. The result of a shard goes from
node to node, where the same version of driftscope has to be.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import ProbeError
from driftscope_probes.push import StepFormat
from driftscope_probes.sharded_analysis import ShardAnalysis
from driftscope_service.jobs.executors.ray.node import described
from driftscope_service.jobs.executors.ray.transfer import unpack
from driftscope_service.runs.ingest.analysis import (
    RunFacts,
    StepPart,
    analysis_of_shards,
    analyze_part,
)


def analyze_on_node(
    order: str, step_format: StepFormat, content: NDArray[np.uint8], floors: Mapping[str, bytes]
) -> tuple[str, ShardAnalysis | None]:
    """`order`: `run`, `machine` and `floors`, whose files are in `floors`. What is told, and the
    result, which the driver never fetches."""
    asked = json.loads(order)
    # The shard's file has no name, so that none is left where this process is killed.
    with (
        tempfile.TemporaryFile() as file,
        tempfile.TemporaryDirectory(prefix="driftscope-floors-") as folder,
    ):
        content.tofile(file)
        file.flush()
        part = StepPart(Path(f"/proc/self/fd/{file.fileno()}"), step_format)
        there = Path(unpack(asked, floors, Path(folder))["floors"])
        try:
            found = analyze_part(part, RunFacts(**asked["run"]), there, asked["machine"])
        except ProbeError as error:
            return _told(error=error.to_dict()), None
    return _told(), found


def merge_on_node(order: str, *shards: ShardAnalysis) -> str:
    """In order of shards; what is told has the step's `analysis`."""
    try:
        analysis = analysis_of_shards(shards, RunFacts(**json.loads(order)["run"]))
    except ProbeError as error:
        return _told(error=error.to_dict())
    return _told(analysis=analysis.to_dict())


def _told(**fields: Any) -> str:
    return json.dumps({"node": described(), "error": None, **fields}, allow_nan=False)
