"""Impossible: values that are no log-probabilities of a sampled token, whatever the model.

In: both sides' values. Out: their rows by kind. A step without any costs two reductions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import FEW_TOKENS, Bools, Ints

#: No vocabulary makes a sampled token rarer: 100 nats are e-44, a uniform choice among a million
#: is 14 nats. SkyRL and vLLM's JSON write -9999.
IMPOSSIBLE_BELOW = -100.0
#: The largest log-probability that rounding of an exact one gives: float32's step near 0.
ROUNDING_ABOVE_ZERO = 1e-5
#: A value of exactly 0 on one side: the other one is then within a few steps of bf16 logits (0.06
#: to 0.125) of it, or at the log of the mass that a nucleus kept.
CERTAIN_ABOVE = -0.5
#: Values are looked through for a constant in at most about so many tokens.
MOST_LOOKED_AT = 2**14
NONE: Ints = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Impossible:
    """Unmasked tokens whose values are no log-probabilities, as rows of the step."""

    nonfinite_rollout: Ints
    nonfinite_trainer: Ints
    sentinel_rollout: Ints  # finite, at IMPOSSIBLE_BELOW or below
    sentinel_trainer: Ints
    positive_rollout: Ints
    positive_trainer: Ints
    zero_rollout: Ints  # exactly 0 while the trainer is far from it
    repeated_rollout: Ints  # one constant other than 0, where the trainer varies
    repeated_value: float | None

    @property
    def rows(self) -> Ints:
        return np.unique(
            np.concatenate(
                [
                    self.nonfinite_rollout,
                    self.nonfinite_trainer,
                    self.sentinel_rollout,
                    self.sentinel_trainer,
                    self.zero_rollout,
                    self.repeated_rollout,
                ]
            )
        )


def find_impossible(
    rollout: NDArray[Any], trainer: NDArray[Any], step_rows: Callable[[Ints], Ints]
) -> Impossible:
    """Of the unmasked tokens; `step_rows` turns their rows into those of the step."""

    def where(chosen: Bools | None) -> Ints:
        return NONE if chosen is None else step_rows(np.flatnonzero(chosen))

    # Two reductions say that there is nothing to look for, which is the usual answer.
    with np.errstate(invalid="ignore"):
        lowest, highest = _range(rollout), _range(trainer)
        finite_r = np.isfinite(rollout) if not np.isfinite(lowest).all() else None
        finite_t = np.isfinite(trainer) if not np.isfinite(highest).all() else None
    zero = np.flatnonzero(rollout == 0.0) if lowest[1] >= 0.0 or finite_r is not None else NONE
    with np.errstate(invalid="ignore"):
        zero = zero[trainer[zero] < CERTAIN_ABOVE]
        zero = zero[np.isfinite(trainer[zero])]
    repeated, value = _repeated(rollout, trainer)
    return Impossible(
        where(None if finite_r is None else ~finite_r),
        where(None if finite_t is None else ~finite_t),
        where(_outside(rollout, lowest, finite_r, low=True)),
        where(_outside(trainer, highest, finite_t, low=True)),
        where(_outside(rollout, lowest, finite_r, low=False)),
        where(_outside(trainer, highest, finite_t, low=False)),
        step_rows(zero),
        step_rows(repeated),
        value,
    )


def _repeated(rollout: NDArray[Any], trainer: NDArray[Any]) -> tuple[Ints, float | None]:
    """Tokens that share one value of the rollout's although the trainer's differ."""
    values = rollout[:: max(1, rollout.size // MOST_LOOKED_AT)]
    with np.errstate(invalid="ignore"):
        values = values[np.isfinite(values) & (values != 0.0) & (values > IMPOSSIBLE_BELOW)]
    if values.size < FEW_TOKENS:
        return NONE, None
    ordered = np.sort(values)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, ordered.size))
    enough = counts.max() >= max(4, 0.005 * values.size)
    if not enough:
        return NONE, None
    value = ordered[starts[int(np.argmax(counts))]]
    where = np.flatnonzero(rollout == value)
    where = where[np.isfinite(trainer[where])]
    # Equal contexts give equal values on both sides: then the trainer's repeat as well. Values
    # of few bits repeat too, and then the trainer's lie close by.
    far = np.abs(trainer[where] - value) > 0.25
    spread = float(np.std(trainer[where])) if where.size else 0.0
    if where.size and far.mean() > 0.8 and (spread > 0.5 or value > ROUNDING_ABOVE_ZERO):
        return where, float(value)
    return NONE, None


# The body -------------------------------------------------------------------------------


def _range(values: NDArray[Any]) -> NDArray[Any]:
    """Lowest and highest; NaN where there is one."""
    if values.size == 0:
        return np.zeros(2)
    return np.array([values.min(), values.max()])


def _outside(
    values: NDArray[Any], bounds: NDArray[Any], finite: Bools | None, *, low: bool
) -> Bools | None:
    """Finite values that are no log-probabilities; None without looking where none can be."""
    if finite is None and (
        bounds[0] > IMPOSSIBLE_BELOW if low else bounds[1] <= ROUNDING_ABOVE_ZERO
    ):
        return None
    with np.errstate(invalid="ignore"):
        found: Bools = values <= IMPOSSIBLE_BELOW if low else values > ROUNDING_ABOVE_ZERO
    return found if finite is None else found & finite
