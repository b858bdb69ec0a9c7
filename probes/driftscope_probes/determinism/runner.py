"""Runner: what answers batches; Memory: a runner that asks another one only once per batch.

In: a Setup and a Batch. Out: an Answer with one output per row.
"""

from __future__ import annotations

from typing import Protocol

from driftscope_probes.determinism.batch import Answer, Batch
from driftscope_probes.determinism.setup import Setup


class Runner(Protocol):
    def run(self, setup: Setup, batch: Batch) -> Answer:
        """Raises ProbeError."""
        ...


class Memory:
    """A reference that several cells or axes share is computed once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._answers: dict[tuple[Setup, Batch], Answer] = {}

    def run(self, setup: Setup, batch: Batch) -> Answer:
        asked = (setup, batch)
        if asked not in self._answers:
            answer = self._runner.run(setup, batch)
            assert len(answer.outputs) == len(batch.rows)
            self._answers[asked] = answer
        return self._answers[asked]
