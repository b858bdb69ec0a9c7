"""Damage: a change of a model, how much of it a severity asks for, and the side that gets it.

In: a function that changes a model by a strength. Out: an Injection into engine or trainer. One
scale of severity for all that can be dosed: the standard deviation of the logits' noise that the
damage alone causes, geometric from SIGMA_AT_0 to SIGMA_AT_1, found by bisection on a few sequences
in float32. A fault that cannot reach it stops at its largest strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Injection, Setting, Way
from driftscope_probes.diagnosis.drill.lab import Lab, Sampled, Scored
from driftscope_probes.diagnosis.drill.pool import kept, pair, rollout, sampling_of, scores
from driftscope_probes.dtypes import Dtype
from driftscope_probes.push.pushed_step import PushedStep, pushed_step

#: Barely visible: the border of what bf16 explains, 1.4 times the prior of its floor; in pairs of
#: finer dtypes, whose floors are far lower, what nobody would call rounding any more.
SIGMA_AT_0: Mapping[str, float] = {"bf16": 0.1, "fp16": 0.03, "fp32": 0.03}
#: Nats. A wrong prompt template was measured at 0.8 per token; a lost tensor at 2 to 5.
SIGMA_AT_1 = 2.0
TRIALS = 7  # bisection steps: the strength within 1 % of its logarithmic range
TRIAL_SEQUENCES, TRIAL_TOKENS = 4, 32
#: model, strength, seed of what the damage draws → the same model, changed
Damage = Callable[[Any, float, int], Any]
Bounds = tuple[float, float]


def sigma(rollout_logprobs: NDArray[Any], trainer_logprobs: NDArray[Any]) -> float:
    """Nats on the logits: sqrt(sum Δ² / sum (1 − p)²)."""
    first = rollout_logprobs.astype(np.float64)
    difference = trainer_logprobs.astype(np.float64) - first
    uncertain = float(np.square(1.0 - np.exp(first)).sum())
    return float(np.sqrt(np.square(difference).sum() / uncertain)) if uncertain > 0.0 else 0.0


def sigma_of(lab: Lab, severity: float) -> float:
    """Nats that a severity asks for in this lab's dtypes."""
    lowest = max(SIGMA_AT_0[lab.rollout_dtype], SIGMA_AT_0[lab.trainer_dtype])
    return float(lowest * (SIGMA_AT_1 / lowest) ** severity)


def strength(
    lab: Lab, setting: Setting, damage: Damage, severity: float, seed: int, bounds: Bounds
) -> float:
    """Between the bounds (both above 0), such that the damage alone has the severity's sigma."""
    fp32 = Lab(lab.model_folder, "fp32", "fp32", lab.seed)
    sampled = _few(lab, setting)
    healthy = kept(fp32, ("trial", setting), lambda: fp32.score(fp32.trainer(), sampled).logprobs)
    asked = sigma_of(lab, severity)
    low, high = map(math.log, bounds)
    for _ in range(TRIALS):
        middle = (low + high) / 2
        model = damage(fp32.trainer(fresh=True), math.exp(middle), seed)
        if sigma(healthy, fp32.score(model, sampled).logprobs) < asked:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _few(lab: Lab, setting: Setting) -> Sampled:
    """The first of the pool's sequences, and of each its first tokens."""
    sampled = rollout(lab, setting)
    # Not the first TRIAL_SEQUENCES, which are answers to one prompt.
    rows = np.linspace(0, len(sampled.prompts) - 1, TRIAL_SEQUENCES).astype(int).tolist()
    return replace(
        sampled,
        prompts=tuple(sampled.prompts[row] for row in rows),
        responses=tuple(sampled.responses[row][:TRIAL_TOKENS] for row in rows),
        logprobs=tuple(sampled.logprobs[row][:TRIAL_TOKENS] for row in rows),
    )


def sample(lab: Lab, setting: Setting, model: Any, **faults: Any) -> Sampled:
    """A rollout of the setting by another model than the healthy engine."""
    return lab.roll_out(
        model,
        lab.prompts(setting.sequences, setting.seed, setting.context),
        sampling_of(setting),
        processed=setting.processed,
        batch=setting.batch,
        seed=setting.seed,
        **faults,
    )


def scored_by(lab: Lab, setting: Setting, sampled: Sampled, model: Any) -> Scored:
    """By another model than the healthy trainer, at the temperature that fits the rollout's."""
    return lab.score(
        model,
        sampled,
        temperature=setting.temperature if sampled.processed else 1.0,
        microbatch=setting.microbatch,
    )


def engine_step(lab: Lab, setting: Setting, model: Any, **extras: NDArray[Any]) -> PushedStep:
    """A damaged engine's step, scored by the healthy trainer."""
    sampled = sample(lab, setting, model)
    return lab.step(sampled, scores(lab, setting, sampled), **extras)


def trainer_step(lab: Lab, setting: Setting, model: Any, **extras: NDArray[Any]) -> PushedStep:
    """A healthy engine's step, scored by a damaged trainer, whose entropy is pushed as well."""
    sampled = pair(lab, setting).sampled
    return lab.step(sampled, scored_by(lab, setting, sampled, model), **extras)


def finer(lab: Lab, severity: float) -> Lab:
    """The same pair where bf16 does not hide a fault of bf16's size: fp16 below severity 0.5,
    fp32 above."""
    dtype: Dtype = "fp16" if severity < 0.5 else "fp32"
    return Lab(lab.model_folder, dtype, dtype, lab.seed)


E4M3_MAX = 448.0


def quantised_e4m3(values: Tensor, scale: float) -> Tensor:
    """Rounded to the grid of e4m3 times `scale` and back; above its largest number clipped."""
    narrow = (values.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return (narrow.float() * scale).to(values.dtype)


def coarse(values: Tensor, bits: float, offset: float = 0.0) -> Tensor:
    """Rounded to `bits` binary digits, as by an accumulator that holds no more; `offset` (part of a
    step) moves the grid, as another order of summation does."""
    mantissa, exponent = torch.frexp(values.float())
    scale = 2.0**bits
    rounded = ((mantissa * scale + offset).round() - offset) / scale
    return torch.ldexp(rounded, exponent).to(values.dtype)


def in_engine(
    cause: str,
    way: Way,
    description: str,
    damage: Damage,
    bounds: Bounds,
    models: tuple[str, ...] | None = None,
) -> Injection:
    """The engine samples with a damaged model."""

    def step(lab: Lab, setting: Setting, dose: float, seed: int) -> PushedStep:
        return engine_step(lab, setting, damage(lab.engine(fresh=True), dose, seed))

    return _dosed(cause, way, description, damage, bounds, models, step)


def in_trainer(
    cause: str,
    way: Way,
    description: str,
    damage: Damage,
    bounds: Bounds,
    models: tuple[str, ...] | None = None,
) -> Injection:
    """The trainer scores with a damaged model."""

    def step(lab: Lab, setting: Setting, dose: float, seed: int) -> PushedStep:
        return trainer_step(lab, setting, damage(lab.trainer(fresh=True), dose, seed))

    return _dosed(cause, way, description, damage, bounds, models, step)


def _dosed(
    cause: str,
    way: Way,
    description: str,
    damage: Damage,
    bounds: Bounds,
    models: tuple[str, ...] | None,
    step: Callable[[Lab, Setting, float, int], PushedStep],
) -> Injection:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
        seed = int(rng.integers(2**31))
        return step(lab, setting, strength(lab, setting, damage, severity, seed, bounds), seed)

    return Injection(cause, way, description, inject, models)


#: A wrong configuration is there from the first step on, where it is mostly met.
MET_AT_FIRST_STEP = 0.6


def from_first_step(injection: Injection) -> Injection:
    """The same fault, most of the time in a step before which no weights were synced."""

    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
        step = injection.inject(lab, severity, rng, setting)
        if rng.random() >= MET_AT_FIRST_STEP:
            return step
        version = {"behavior_version": np.zeros(step.sequences, np.int32)}
        return pushed_step(step.tensors() | version, {**step.metadata, "weights_version": "0"})

    return replace(injection, inject=inject)


def noted(injection: Injection, part: float, **settings: str) -> Injection:
    """The same fault; `part` of those who meet it push these settings of theirs as metadata."""

    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
        step = injection.inject(lab, severity, rng, setting)
        if rng.random() >= part:
            return step
        return pushed_step(step.tensors(), {**step.metadata, **settings})

    return replace(injection, inject=inject)
