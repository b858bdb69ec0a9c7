"""Large steps in the service's own processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from driftscope_service.runs.ingest.analysis import (
    RunFacts,
    StepAnalysis,
    StepPart,
    analysis_of_shards,
    analyze_part,
)
from driftscope_service.runs.ingest.analysis_pool import AnalysisPool


@dataclass(frozen=True, slots=True)
class LargeStepsInPool:
    pool: AnalysisPool

    async def analyze(self, parts: Sequence[StepPart], run: RunFacts, floors: Path) -> StepAnalysis:
        """As many shards at once as there are analysis processes; each holds one."""
        began = time.perf_counter()
        found = await asyncio.gather(
            *(self.pool.run(analyze_part, part, run, floors) for part in parts)
        )
        analysis = await self.pool.run(analysis_of_shards, found, run)
        return replace(analysis, took_s=time.perf_counter() - began)

    def stop(self) -> None:
        """The pool is shared; its owner stops it."""
