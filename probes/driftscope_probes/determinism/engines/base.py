"""The seam between the determinism probe and an engine that is loaded: batches in, answers out."""

from __future__ import annotations

from typing import Any, Protocol

from driftscope_probes.determinism.batch import Answer, Batch


class BatchEngine(Protocol):
    def run(self, batch: Batch) -> Answer:
        """Raises ProbeError."""
        ...

    def used_settings(self) -> dict[str, Any]: ...

    def close(self) -> None:
        """Let go of the model, so that another engine can be loaded in this process."""
        ...
