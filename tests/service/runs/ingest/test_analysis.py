"""Files of a step → its analysis, the same however it was cut; and in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.drift import SERIES
from driftscope_probes.push import PushError
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.analysis import Dtypes, StepPart, analyze_parts, read_part
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
    once, joined = analyze_parts([whole], Dtypes()), analyze_parts(shards, Dtypes())
    assert joined.document == once.document and joined.content == once.content
    assert sum(read_part(shard).tokens for shard in shards) == once.content.tokens == sum(LENGTHS)
    document = json.loads(once.document)
    assert once.series == {name: document["comparison"].get(name) for name in SERIES}
    assert set(once.crossed) == {limit["metric"] for limit in document["crossed_limits"]}


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
