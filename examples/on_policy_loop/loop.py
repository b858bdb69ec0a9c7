"""The loop in values: what is asked of it, what each step was, and what came out."""

from __future__ import annotations

import json
from dataclasses import dataclass

from examples.on_policy_loop.modes import Mode


@dataclass(frozen=True, slots=True)
class LoopSettings:
    mode: Mode
    model: str
    steps: int
    learning_rate: float
    iterations: int  # optimiser steps per rollout
    completion_tokens: int
    micro_batch: int  # sequences; the batch is BATCH whatever it is
    seed: int
    full_vocabulary_every: int  # steps; 0: never
    fault: str | None = None  # of the weight sync, from planted.py
    fault_at: int = 0  # step


@dataclass(frozen=True, slots=True)
class LoopStep:
    step: int
    kl_k3: float | None  # nats; None where the service has no such step
    abs_diff_max: float | None  # nats
    abs_diff_mean: float | None  # nats
    cause: str | None  # as the service names it; None where there is nothing to explain
    reward: float | None
    grad_norm: float | None
    entropy: float | None  # nats
    step_s: float | None
    trl_abs_diff_mean: float | None  # as TRL logs it, with importance sampling on
    full_vocabulary_equal: bool | None = None  # None where it was not looked at


@dataclass(frozen=True, slots=True)
class LoopResult:
    mode: str
    run: str
    model: str
    weights_sha256: str  # of the last weights
    steps: tuple[LoopStep, ...]

    @staticmethod
    def read(text: str) -> LoopResult:
        """What `run.py --json` printed."""
        found = json.loads(text)
        steps = tuple(LoopStep(**step) for step in found.pop("steps"))
        return LoopResult(**found, steps=steps)

    def series(self, name: str) -> tuple[float | None, ...]:
        """A field of LoopStep, step by step."""
        return tuple(getattr(step, name) for step in self.steps)
