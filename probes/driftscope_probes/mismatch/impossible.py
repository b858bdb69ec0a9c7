"""Impossible: values that are no log-probabilities of a sampled token, whatever the model.

In: both sides' values. Out: their rows by side and kind. A step without any costs two reductions
a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.mismatch.number import BoolArray, IntArray
from driftscope_probes.mismatch.terms import ABOUT_ZERO, SENTINEL_AT_MOST

#: The largest log-probability that rounding of an exact one gives: float32's step near 0.
ROUNDING_ABOVE_ZERO = 1e-5
#: A value of exactly 0 on one side: the other one is then within a few steps of bf16 logits (0.06
#: to 0.125) of it, or at the log of the mass that a nucleus kept.
CERTAIN_ABOVE = -0.5
#: Of the zeros whose partner is not about 0, this share below CERTAIN_ABOVE makes all of them
#: placeholders: a nucleus that keeps one token keeps most of the mass.
PLACEHOLDERS_FROM = 0.5
#: Values are looked through for a constant in at most about so many tokens.
MOST_LOOKED_AT = 2**12
#: No shape is read from fewer values, and a constant is at least so many of them.
FEW_VALUES, LEAST_REPEATED, LEAST_SHARE = 16, 4, 0.005
#: Nats between a constant and its partner, and their spread, that no equal contexts explain.
FAR, SPREAD, MOSTLY_FAR = 0.25, 0.5, 0.8
NONE: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class OddValues:
    """Rows of the step where one side's value is no log-probability; unmasked tokens only."""

    nan: IntArray
    minus_infinity: IntArray
    plus_infinity: IntArray
    sentinel: IntArray  # finite, at SENTINEL_AT_MOST or below
    positive: IntArray  # finite, above 0 by more than rounding
    zero: IntArray  # exactly 0, the partner finite and below ABOUT_ZERO
    repeated: IntArray  # one constant other than 0 where the partner varies
    repeated_value: float | None

    @property
    def nonfinite(self) -> IntArray:
        return np.sort(np.concatenate([self.nan, self.minus_infinity, self.plus_infinity]))


@dataclass(frozen=True, slots=True, eq=False)
class Impossible:
    rollout: OddValues
    trainer: OddValues
    placeholder: IntArray  # zeros of the rollout's that no sampling explains

    @property
    def rows(self) -> IntArray:
        """Those that no shape may be read from."""
        return np.unique(
            np.concatenate(
                [
                    self.rollout.nonfinite,
                    self.trainer.nonfinite,
                    self.rollout.sentinel,
                    self.trainer.sentinel,
                    self.placeholder,
                    self.rollout.repeated,
                ]
            )
        )


def find_impossible(
    rollout: NDArray[Any],
    trainer: NDArray[Any],
    step_rows: Callable[[IntArray], IntArray] = lambda rows: rows,
) -> Impossible:
    """Of the unmasked tokens; `step_rows` turns their rows into those of the step."""
    of_rollout, of_trainer = bounds(rollout), bounds(trainer)
    zero = _zeros(rollout, trainer, of_rollout)
    deep = zero[trainer[zero] < CERTAIN_ABOVE]
    placeholder = zero if deep.size > PLACEHOLDERS_FROM * zero.size else deep
    return Impossible(
        _odd_values(rollout, trainer, of_rollout, zero, step_rows),
        _odd_values(trainer, rollout, of_trainer, _zeros(trainer, rollout, of_trainer), step_rows),
        step_rows(placeholder),
    )


def _odd_values(
    values: NDArray[Any],
    partner: NDArray[Any],
    own_bounds: tuple[float, float],
    zero: IntArray,
    step_rows: Callable[[IntArray], IntArray],
) -> OddValues:
    repeated, value = repeated_value(values, partner)
    kinds = ("nan", "minus_infinity", "plus_infinity", "sentinel", "positive")
    known = dict.fromkeys(kinds, NONE) | {"zero": zero, "repeated": repeated}
    # Two reductions say that there is nothing else to look for, which is the usual answer.
    lowest, highest = own_bounds
    if not np.isfinite(lowest) or not np.isfinite(highest):
        known["nan"] = np.flatnonzero(np.isnan(values))
        known["minus_infinity"] = np.flatnonzero(np.isneginf(values))
        known["plus_infinity"] = np.flatnonzero(np.isposinf(values))
    with np.errstate(invalid="ignore"):
        if not lowest > SENTINEL_AT_MOST:
            known["sentinel"] = _where((values <= SENTINEL_AT_MOST) & (values > -np.inf))
        if not highest <= ROUNDING_ABOVE_ZERO:
            known["positive"] = _where((values > ROUNDING_ABOVE_ZERO) & (values < np.inf))
    return OddValues(
        **{name: step_rows(rows) for name, rows in known.items()}, repeated_value=value
    )


def bounds(values: NDArray[Any]) -> tuple[float, float]:
    """Lowest and highest; NaN where there is one, 0 of none."""
    with np.errstate(invalid="ignore"):
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def repeated_value(values: NDArray[Any], partner: NDArray[Any]) -> tuple[IntArray, float | None]:
    """Rows that share one value although the partner's differ; sentinels and 0 do not count."""
    looked = values[:: max(1, values.size // MOST_LOOKED_AT)]
    with np.errstate(invalid="ignore"):
        looked = looked[np.isfinite(looked) & (looked != 0.0) & (looked > SENTINEL_AT_MOST)]
    if looked.size < FEW_VALUES:
        return NONE, None
    value, count = most_frequent(looked)
    if count < max(LEAST_REPEATED, LEAST_SHARE * looked.size):
        return NONE, None
    where = np.flatnonzero(values == value)
    where = where[np.isfinite(partner[where])]
    # Equal contexts give equal values on both sides: then the partner's repeat as well. Values
    # of few bits repeat too, and then the partner's lie close by.
    far = np.abs(partner[where] - value) > FAR
    spread = float(np.std(partner[where])) if where.size else 0.0
    if where.size and far.mean() > MOSTLY_FAR and (spread > SPREAD or value > ROUNDING_ABOVE_ZERO):
        return where, value
    return NONE, None


def most_frequent(values: NDArray[Any]) -> tuple[float, int]:
    """Of at least one value, none of them NaN; and how often it occurs."""
    ordered = np.sort(values)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(starts, ordered.size))
    most = int(np.argmax(counts))
    return float(ordered[starts[most]]), int(counts[most])


def _zeros(
    values: NDArray[Any], partner: NDArray[Any], own_bounds: tuple[float, float]
) -> IntArray:
    if own_bounds[1] < 0.0:
        return NONE
    with np.errstate(invalid="ignore"):
        zero = np.flatnonzero(values == 0.0)
        return zero[(partner[zero] < ABOUT_ZERO) & (partner[zero] > -np.inf)]


def _where(chosen: BoolArray) -> IntArray:
    return np.flatnonzero(chosen)
