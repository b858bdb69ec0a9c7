"""Files of a step → its analysis, the same however it was cut; and in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.drift import SERIES
from driftscope_probes.floor.store import FloorStore, StoredFloor
from driftscope_probes.push import PushError
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.analysis import (
    RunFacts,
    StepAnalysis,
    StepPart,
    analyze_parts,
    read_part,
)
from driftscope_service.runs.ingest.analysis_pool import AnalysisPool

LENGTHS = (5, 3, 9, 1)


def part(folder: Path, tensors: dict[str, Any], first: int, last: int) -> StepPart:
    """Sequences from `first` to `last`."""
    bounds = np.cumsum([0, *LENGTHS])
    tokens = slice(bounds[first], bounds[last])
    cut = {name: tensors[name][tokens].copy() for name in tensors.keys() - {"cu_seqlens"}}
    path = folder / f"{first}-{last}.safetensors"
    save_file({**cut, "cu_seqlens": bounds[first : last + 1] - bounds[first]}, path)
    return StepPart(path, "safetensors")


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_shards_give_the_analysis_of_the_whole(pushing: Any, tmp_path: Path, cut: int) -> None:
    tensors = pushing.tensors(LENGTHS)
    whole = part(tmp_path, tensors, 0, 4)
    shards = [part(tmp_path, tensors, 0, cut), part(tmp_path, tensors, cut, 4)]
    once, joined = (analyze_parts(parts, RunFacts(), tmp_path) for parts in ([whole], shards))
    assert joined.document == once.document and joined.content == once.content
    assert sum(read_part(shard).tokens for shard in shards) == once.content.tokens == sum(LENGTHS)
    document = json.loads(once.document)
    assert once.series == {name: document["comparison"].get(name) for name in SERIES}
    assert set(once.crossed) == {limit["metric"] for limit in document["crossed_limits"]}
    assert StepAnalysis.from_dict(json.loads(json.dumps(once.to_dict()))) == once


def test_a_calibrated_floor_goes_before_the_prior(pushing: Any, tmp_path: Path) -> None:
    step = part(tmp_path, pushing.tensors(LENGTHS), 0, 4)
    run = RunFacts("my-model", "bf16", "bf16")
    floors = tmp_path / "floors"

    def floor_of(known: RunFacts) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(analyze_parts([step], known, floors).document)
        return dict(found["diagnosis"]["floor"])

    prior = floor_of(run)
    assert prior["source"] == "prior"
    FloorStore(floors).put([calibrated("my-model", 0.0123)])
    found = floor_of(run)
    assert (found["source"], found["sigma"], found["model"]) == ("calibrated", 0.0123, "my-model")
    assert floor_of(RunFacts("other", "bf16", "bf16"))["source"] == "prior"
    assert floor_of(RunFacts("my-model", "fp16", "bf16"))["source"] == "prior"
    # What a step says of itself goes before what its run says.
    assert run.of_step({"model": "other"}) == RunFacts("other", "bf16", "bf16")


def calibrated(model: str, sigma: float) -> StoredFloor:
    return StoredFloor(
        schema_version="1", model=model, fingerprint=None, rollout_dtype="bf16",
        trainer_dtype="bf16", machine="a CPU", sigma=sigma, low=None, high=None, basis="same_side",
        tokens=512, sequences=16, measured_by="floor", created_at="2026-11-29T17:00:00+00:00",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[AnalysisPool]:
    pool = AnalysisPool(1)
    yield pool
    pool.stop()
    pool.stop()


def test_a_process_gives_results_and_errors_of_users(pool: AnalysisPool, tmp_path: Path) -> None:
    assert asyncio.run(pool.run(os.getpid)) not in (os.getpid(), 0)
    (tmp_path / "bad").write_bytes(b"no step")
    with pytest.raises(Exception) as raised:
        asyncio.run(pool.run(read_part, StepPart(tmp_path / "bad", "safetensors")))
    assert raised.type.__name__ == PushError.__name__


def test_a_process_that_is_killed_is_told_and_replaced(pool: AnalysisPool) -> None:
    before = asyncio.run(pool.run(os.getpid))
    with pytest.raises(ServiceError, match="ended, probably .*memory") as raised:
        asyncio.run(pool.run(os.kill, before, signal.SIGKILL))
    assert raised.value.headers["Retry-After"]
    assert asyncio.run(pool.run(os.getpid)) != before


BLAS = """
import asyncio, os
import numpy as np
from driftscope_service.runs.ingest.analysis_pool import AnalysisPool

pool, long, tasks = AnalysisPool(1), np.ones(1_000_000), "/proc/self/task"
before = asyncio.run(pool.run(os.listdir, tasks))
assert asyncio.run(pool.run(np.dot, long, long)) == long.size
assert asyncio.run(pool.run(os.listdir, tasks)) == before
pool.stop()
"""


def test_an_analysis_wakes_no_thread_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork starts without them; the first product of this length starts one for each core."""
    monkeypatch.delenv("OMP_NUM_THREADS")  # that of the other tests
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", BLAS], env=environment, check=True, timeout=120)
