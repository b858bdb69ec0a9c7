"""The interface to rollout engines: what an engine is given, what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.progress import ProgressSink
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace


@dataclass(frozen=True, slots=True)
class RolloutTask:
    """Everything an engine needs for one rollout."""

    model_path: Path
    model_name: str  # as the user named it
    dtype: Dtype
    prompts: PromptBatch
    sampling: SamplingSettings
    engine: EngineSettings

    @property
    def context(self) -> int:
        """Longest sequence, in tokens, that this task can reach."""
        return self.prompts.longest + self.sampling.max_tokens

    @property
    def batch_size(self) -> int:
        """Sequences decoded together by default."""
        return self.engine.batch_size or min(len(self.prompts), 256)

    def seed(self, index: int) -> int:
        """Seed of request `index`: its own, so that a token never depends on its batch."""
        return self.sampling.seed + index


class RolloutEngine(Protocol):
    """An engine is loaded by its constructor, generates once, and dies with its process."""

    def generate(self, progress: ProgressSink) -> Trace:
        """Sample a response to every prompt; log-probabilities in nats, float32."""
        ...

    def used_settings(self) -> dict[str, Any]:
        """Settings as the engine resolved them (JSON values), for the Trace."""
        ...
