"""The interface to what analyses a large step: processes here, or the nodes of a cluster.

Whatever does it, the same shards give the same document bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from driftscope_service.runs.ingest.analysis import RunFacts, StepAnalysis, StepPart


class LargeSteps(Protocol):
    async def analyze(self, parts: Sequence[StepPart], run: RunFacts, floors: Path) -> StepAnalysis:
        """`parts` in order of shards; `floors`: folder of calibrated ones, which need not exist.

        Raises PushError for what was pushed, ServiceError where it may succeed later.
        """
        ...

    def stop(self) -> None:
        """What is under way is given up. May be called twice."""
        ...
