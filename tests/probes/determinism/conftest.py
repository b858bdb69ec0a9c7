"""A stand-in engine that depends on its batch in ways a test chooses; requests that use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from driftscope_probes.determinism.report import AxisReport
from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_axes
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Setup
from driftscope_probes.progress import discard

#: Of how many places in the float32 order a row's log-probabilities are moved.
Fault = Callable[[Setup, Batch, int], int]
TEXT = tuple(range(3, 500))


def no_fault(setup: Setup, batch: Batch, index: int) -> int:
    return 0


@dataclass
class FakeEngine:
    """Tokens follow from the prompt alone; `fault` moves bits, `flips` changes tokens from one on.

    Computed with integers only, so that nothing but the fault can differ.
    """

    fault: Fault = no_fault
    flip_from: int | None = None  # token from which a faulty row samples others
    preemptions: int | None = 1
    cached_tokens: int | None = 1
    calls: list[tuple[Setup, Batch]] = field(default_factory=list)

    def run(self, setup: Setup, batch: Batch) -> Answer:
        self.calls.append((setup, batch))
        outputs = tuple(self._output(setup, batch, index) for index in range(len(batch.rows)))
        return Answer(outputs, self.preemptions, self.cached_tokens)

    def _output(self, setup: Setup, batch: Batch, index: int) -> Output:
        row = batch.rows[index]
        moved = self.fault(setup, batch, index)
        tokens = list(row.score) or [
            (sum(row.prompt) + place * 7) % 101 for place in range(batch.max_tokens)
        ]
        if moved and self.flip_from is not None and not row.score:
            tokens[self.flip_from :] = [token + 200 for token in tokens[self.flip_from :]]
        logprobs = np.array([-1.5 - token / 128 for token in tokens], np.float32)
        bits = logprobs.view(np.uint32) + np.uint32(moved)
        return Output(np.array(tokens, np.int32), bits.view(np.float32))


Probe = Callable[..., AxisReport]


@pytest.fixture
def probe() -> Probe:
    """One axis against a fake engine; keyword arguments are fields of the request."""

    def run(axis: str, engine: FakeEngine, **fields: object) -> AxisReport:
        asked = {"model": "fake", "axes": [axis], "max_tokens": 6, "threads": 2, **fields}
        (result,) = run_axes(DeterminismRequest(**asked), TEXT, engine, discard)
        return result

    return run


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    return FakeEngine
