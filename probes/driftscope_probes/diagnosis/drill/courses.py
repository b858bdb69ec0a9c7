"""Courses: the steps of a run with a fault that shows in their order.

In: a lab, a severity, a setting. Out: pushed steps, and which of them follow a restart. Weights
that no sync brings fall further behind with each step; a reload, a resume, a sleep happen once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from driftscope_probes.diagnosis.drill.case import Setting, Way
from driftscope_probes.diagnosis.drill.damage import (
    Damage,
    engine_step,
    strength,
    trainer_step,
)
from driftscope_probes.diagnosis.drill.faults.model import sharper_attention, sharper_norm
from driftscope_probes.diagnosis.drill.faults.weights import (
    ROWS_BOUNDS,
    STEP_BOUNDS,
    lose_rows,
    reset_tensor,
)
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.pool import between, pair
from driftscope_probes.diagnosis.drill.updates import Rule, displacement, move
from driftscope_probes.push.pushed_step import PushedStep

STEPS = 12
#: An event happens at one of these: with steps before it to compare with, and after it.
EARLIEST, LATEST = 4, 7
#: slime #1695 saw it for a few steps.
HEALED_AFTER = (2, 3, 4)
#: Seeds of the steps: each has prompts and draws of its own.
SEED_OF_STEP = 500
#: A policy under training: its temperature on both sides stands for the entropy that falls.
COOLEST = 0.55
SHARPENING_BOUNDS = (1e-3, 10.0)
#: A course is told from the floor on: severities below this do not leave it in bf16.
LEAST_SEVERITY = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    steps: tuple[PushedStep, ...]
    resumed: int | None = None  # index of the first step after a restart


@dataclass(frozen=True, slots=True)
class RunInjection:
    """`inject(lab, severity, rng, setting)`; `severity`: 0 just told from rounding, 1 gross."""

    cause: str | None  # None: a healthy run
    way: Way
    description: str
    inject: Callable[[Lab, float, np.random.Generator, Setting], Course]


def of_step(setting: Setting, index: int) -> Setting:
    return replace(setting, seed=setting.seed + SEED_OF_STEP * (index + 1))


def _sound(lab: Lab, setting: Setting) -> PushedStep:
    made = pair(lab, setting)
    return lab.step(made.sampled, made.scored)


def _event(rng: np.random.Generator) -> int:
    return int(rng.integers(EARLIEST, LATEST + 1))


def steady(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
    return Course(tuple(_sound(lab, of_step(setting, index)) for index in range(STEPS)))


def cooling(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
    """The entropy falls and nothing else happens."""
    return Course(tuple(_sound(lab, _cooled(setting, index)) for index in range(STEPS)))


def _cooled(setting: Setting, index: int) -> Setting:
    fraction = index / (STEPS - 1)
    temperature = round(between(1.0, COOLEST, fraction), 3)
    return replace(of_step(setting, index), temperature=temperature, processed=True)


def _never_synced(rule: Rule) -> Callable[..., Course]:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
        difference, dose = _update(lab, setting, rule, severity)
        steps = [_sound(lab, of_step(setting, 0))]
        for index in range(1, STEPS):
            ahead = move(lab.trainer(fresh=True), difference, dose * index / (STEPS - 1))
            steps.append(trainer_step(lab, of_step(setting, index), ahead))
        return Course(tuple(steps))

    return inject


def _update(lab: Lab, setting: Setting, rule: Rule, severity: float) -> tuple[Any, float]:
    difference = displacement(lab, setting, rule)

    def damage(model: Any, by: float, _: int) -> Any:
        return move(model, difference, by)

    told = between(LEAST_SEVERITY, 1.0, severity)
    # Measured on another step's tokens: on those that the update saw, it does more.
    return difference, strength(lab, of_step(setting, 0), damage, told, 0, STEP_BOUNDS)


def _reload(damage: Damage) -> Callable[..., Course]:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
        at, seed = _event(rng), int(rng.integers(2**31))
        told = between(LEAST_SEVERITY, 1.0, severity)
        dose = strength(lab, setting, damage, told, seed, ROWS_BOUNDS)
        damaged = damage(lab.engine(fresh=True), dose, seed)
        return _from(lab, setting, at, STEPS, lambda _: damaged)

    return inject


def _from(lab: Lab, setting: Setting, at: int, until: int, engine: Callable[[int], Any]) -> Course:
    """Healthy, but for the steps from `at` to before `until`: by that engine, counted from 0."""
    steps = [
        engine_step(lab, of_step(setting, index), engine(index - at))
        if at <= index < until
        else _sound(lab, of_step(setting, index))
        for index in range(STEPS)
    ]
    return Course(tuple(steps))


def _resumed(rule: Rule, *, fading: bool) -> Callable[..., Course]:
    """The engine starts from an older checkpoint until the next whole sync, or catches up."""

    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
        at, healed = _event(rng), int(rng.choice(HEALED_AFTER))
        difference, dose = _update(lab, setting, rule, severity)

        def engine(index: int) -> Any:
            left = (healed - index) / healed if fading else 1.0
            return move(lab.engine(fresh=True), difference, -dose * left)

        course = _from(lab, setting, at, at + healed, engine)
        return replace(course, resumed=at if rng.random() < 0.5 else None)

    return inject


def zeroed(model: Any, fraction: float, seed: int) -> Any:
    """Weights dropped at level 2 and not loaded again: zeros in that part of the layers."""
    with torch.no_grad():
        for layer in _some_layers(model, fraction, seed):
            for parameter in layer.parameters():
                parameter.zero_()
    return model


def undefined(model: Any, fraction: float, seed: int) -> Any:
    """Pages given back and never filled: whatever lies there, here normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in _some_layers(model, fraction, seed):
            for parameter in layer.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter.float().std().clamp_min(0.02) * 4.0)
    return model


def _some_layers(model: Any, fraction: float, seed: int) -> list[Any]:
    layers = list(model.model.layers)
    count = max(1, round(fraction * len(layers)))
    rows = np.random.default_rng(seed).permutation(len(layers))[:count]
    return [layers[row] for row in rows]


def _asleep(damage: Damage) -> Callable[..., Course]:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
        at, seed = _event(rng), int(rng.integers(2**31))
        woken = damage(lab.engine(fresh=True), between(0.4, 1.0, severity), seed)
        return _from(lab, setting, at, STEPS, lambda _: woken)

    return inject


def _sharpening(damage: Damage, *, of_engine: bool) -> Callable[..., Course]:
    """Both sides cool down, and one of them grows sharper in its own way meanwhile."""

    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> Course:
        seed = int(rng.integers(2**31))
        told = between(LEAST_SEVERITY, 1.0, severity)
        dose = strength(lab, setting, damage, told, seed, SHARPENING_BOUNDS)
        steps = [_sound(lab, _cooled(setting, 0))]
        for index in range(1, STEPS):
            model = lab.engine(fresh=True) if of_engine else lab.trainer(fresh=True)
            model = damage(model, dose * index / (STEPS - 1), seed)
            pushed = engine_step if of_engine else trainer_step
            steps.append(pushed(lab, _cooled(setting, index), model))
        return Course(tuple(steps))

    return inject


COURSES: tuple[RunInjection, ...] = (
    RunInjection(None, "a", "a healthy run", steady),
    RunInjection(None, "b", "a healthy run whose entropy falls", cooling),
    RunInjection(
        "stale_engine_weights",
        "a",
        "the engine keeps its first weights, the trainer ascends its gradient",
        _never_synced("gradient"),
    ),
    RunInjection(
        "stale_engine_weights",
        "b",
        "the engine keeps its first weights, the trainer's Adam moves on",
        _never_synced("adam"),
    ),
    RunInjection(
        "dropped_tensor_on_reload",
        "a",
        "from one sync on, rows of one matrix are zero in the engine",
        _reload(lose_rows),
    ),
    RunInjection(
        "dropped_tensor_on_reload",
        "b",
        "from one sync on, part of one matrix is as it was initialised",
        _reload(reset_tensor),
    ),
    RunInjection(
        "resume_mismatch",
        "a",
        "after a restart the engine has an older checkpoint until the next whole sync",
        _resumed("gradient", fading=False),
    ),
    RunInjection(
        "resume_mismatch",
        "b",
        "after a restart the engine catches up with the trainer over some steps",
        _resumed("adam", fading=True),
    ),
    RunInjection(
        "sleep_wake_corruption",
        "a",
        "after a sleep, layers of the engine are zero",
        _asleep(zeroed),
    ),
    RunInjection(
        "sleep_wake_corruption",
        "b",
        "after a sleep, layers of the engine hold what lay there",
        _asleep(undefined),
    ),
    RunInjection(
        "entropy_sharpening",
        "a",
        "as the policy cools, the engine's attention grows too sharp",
        _sharpening(sharper_attention, of_engine=True),
    ),
    RunInjection(
        "entropy_sharpening",
        "b",
        "as the policy cools, the trainer's final norm grows unevenly",
        _sharpening(sharper_norm, of_engine=False),
    ),
)
