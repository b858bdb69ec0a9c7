"""A pair in memory, whose trainer is off by a known amount until one setting is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.sides import (
    EngineChange,
    Known,
    Logprobs,
    Recorded,
    Sampled,
    Sequences,
    Sides,
    Tokens,
    TrainerChange,
)
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.trainer.settings import TrainerSettings

PROMPTS: Tokens = ((1, 2, 3), (4, 5))
RESPONSES: Tokens = (tuple(range(40)), tuple(range(60)))


def values(seed: int) -> Logprobs:
    return (-3.0 - np.random.default_rng(seed).gamma(2.0, 0.7, 100)).astype(np.float32)


@dataclass
class Engine:
    """Its log-probabilities are always the same."""

    asked: int = 0

    def sample(self, change: EngineChange) -> Sampled:
        self.asked += 1
        return Sampled(Sequences(PROMPTS, RESPONSES), values(1))

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        return self.sample(change)

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        return values(1)

    def close(self) -> None: ...


@dataclass
class Trainer:
    """Off by normal noise of `fault` nats, unless dropout and the like are off."""

    fault: float

    def score(self, sequences: Sequences, change: TrainerChange) -> Logprobs:
        off = 0.0 if change.quiet or change.reference else self.fault
        noise = np.random.default_rng(2).normal(0.0, 1.0, 100)
        return (values(1) + (0.001 + off) * noise).astype(np.float32)

    def close(self) -> None: ...


@dataclass
class Made:
    """`fault`: nats."""

    fault: float = 0.5
    recorded: Recorded | None = None
    engine: Engine = field(default_factory=Engine)

    def bench(self) -> Bench:
        sides = Sides(
            engine_model=Path("model"),
            trainer_model=Path("model"),
            engine=EngineSettings(threads=1),
            trainer=TrainerSettings(threads=1),
            engine_dtype="bf16",
            trainer_mode="bf16",
            sampling=SamplingSettings(),
            prompts=PROMPTS,
        )
        known = Known(prior_floor("bf16", "bf16"), self.recorded)
        return Bench(sides, self.engine, Trainer(self.fault), known)
