"""When a number changed: an estimate over all values around the change, with a 95 % interval.

In: levels of one number and the index near which they change. Out: the first index that differs.

Two models of a change are weighed against each other: one level and then another, and one level
and then a line from a knee on (Hinkley, Biometrika 57, 1970, and JASA 66, 1971). The likelihood of
every index is that of Student's t with FREEDOM degrees, so that outliers decide nothing, on
residuals freed of their lag-1 autocorrelation (Cochrane and Orcutt, JASA 44, 1949). With a flat
prior over the index it is the posterior, whose central 95 % are the interval (Smith, Biometrika 62,
1975).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from driftscope_probes.drift.split import MAD_CONSISTENCY, without_spikes
from driftscope_probes.mismatch.number import FloatArray

#: Heavy tails without losing much for Gaussian noise (Lange, Little and Taylor, JASA 84, 1989).
FREEDOM: Final = 4.0
#: Most values of either side that are read: more make the levels no surer than they have to be.
WINDOW: Final = 120
#: Rounds of: levels for an index, index for the levels. They settle in two or three.
ROUNDS: Final = 4
MAX_AUTOCORRELATION: Final = 0.9
#: Smallest std of the noise, as a part of the range of the values. An exact ramp has none at all.
LEAST_NOISE: Final = 1e-3
#: The same with spikes counted: squares of residuals in units of it must not overflow.
LEAST_OF_ALL: Final = 1e-12
#: Values after the change from which on a line can be told from a level.
LINE_AFTER: Final = 6
#: Central part of the posterior that is the interval.
INTERVAL: Final = 0.95

Shape = Literal["shift", "growth"]


@dataclass(frozen=True, slots=True)
class Dated:
    """Indices in the values given: the first that differs and its interval, ends included."""

    at: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model at its likeliest index."""

    posterior: FloatArray  # [n - 1], of the indices 1 … n - 1; sums to 1
    residuals: FloatArray  # [n]
    slope: float  # after the change, per value; 0 for a level

    @property
    def at(self) -> int:
        return int(np.argmax(self.posterior)) + 1

    def criterion(self, parameters: int, memory: float = 0.0) -> float:
        """Schwarz' criterion with Laplace noise, so that outliers do not decide."""
        return laplace_criterion(self.residuals, parameters, memory)

    @property
    def memory(self) -> float:
        return _noise(self.residuals, np.finfo(float).tiny)[0]


def laplace_criterion(residuals: FloatArray, parameters: int, memory: float = 0.0) -> float:
    """residuals: [n]; `memory`: lag-1 autocorrelation, which makes n values worth fewer."""
    mean = float(np.abs(residuals).mean())
    if mean == 0.0:
        return -math.inf
    worth = residuals.size * (1.0 - memory) / (1.0 + memory)
    return 2.0 * worth * math.log(mean) + parameters * math.log(residuals.size)


def dated(posterior: FloatArray) -> Dated:
    """posterior: [n - 1] of the indices 1 … n - 1."""
    sums = np.cumsum(posterior)
    aside = (1.0 - INTERVAL) / 2.0 * sums[-1]
    at = int(np.argmax(posterior)) + 1
    low = int(np.searchsorted(sums, aside)) + 1
    high = int(np.searchsorted(sums, sums[-1] - aside)) + 1
    return Dated(at, min(low, at), max(min(high, posterior.size), at))


def shift_at(values: FloatArray, guess: int, line: FloatArray | None = None) -> Fitted:
    """values: [n] finite, one level up to about index `guess`, 0 < guess < n, another from there.
    line: [n], what the values before follow in place of a level."""
    at, least = guess, _least_noise(values)
    posterior, path = np.empty(0), values
    for _ in range(ROUNDS):
        before = np.median(values[:at]) if line is None else line
        after = np.median(values[at:])
        path = np.where(np.arange(values.size) < at, before, after)
        memory, spread = _noise(values - path, least)
        below, above = values - before, values - after
        old = _log_density(_innovations(below, memory), spread)
        new = _log_density(_innovations(above, memory), spread)
        joint = _log_density(above[1:] - memory * below[:-1], spread)
        # Index t: the old level up to t - 1, the crossing at t, the new level from t + 1 on.
        logs = np.cumsum(old)[:-1] + joint + (new.sum() - np.cumsum(new)[1:])
        posterior = np.exp(logs - logs.max())
        posterior /= posterior.sum()
        found = int(np.argmax(posterior)) + 1
        if found == at:
            break
        at = found
    return Fitted(posterior, values - path, 0.0)


def growth_at(values: FloatArray, base: int = 0) -> Fitted:
    """values: [n] finite, n ≥ LINE_AFTER: a level and, from some index on, a line that leaves it.
    `base`: values at the start that are certainly of the level."""
    count = values.size
    least = _least_noise(values)
    times = np.arange(count)
    knees = np.arange(1, count)
    ramps = np.maximum(0.0, times[None, :] - knees[:, None] + 1.0)  # [knees, n]
    cleaned = without_spikes(values)
    weights = np.ones(count)
    memory = 0.0
    posterior, residuals, slope = np.empty(0), values, 0.0
    for _ in range(ROUNDS - 1):
        whitened = _whitened(cleaned, memory)
        ones = _whitened(np.ones(count), memory)
        filtered = ramps.copy()
        filtered[:, 1:] -= memory * ramps[:, :-1]
        levels, slopes = _lines(whitened, ones, filtered, weights)
        fitted = levels[:, None] + slopes[:, None] * ramps
        innovations = _whitened(values - fitted, memory)
        best = int(np.argmin((weights * innovations**2).sum(axis=1)))
        memory, spread = _noise(values - fitted[best], least)
        logs = _log_density(innovations, spread).sum(axis=1)
        logs[: max(0, base - 1)] = -np.inf
        best = int(np.argmax(logs))
        posterior = np.exp(logs - logs[best])
        posterior /= posterior.sum()
        residuals, slope = values - fitted[best], float(slopes[best])
        weights = (FREEDOM + 1.0) / (FREEDOM + (innovations[best] / spread) ** 2)
    return Fitted(posterior, residuals, slope)


def _lines(
    values: FloatArray, ones: FloatArray, ramps: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weighted least squares of values on ones and each row of ramps: [knees] levels and slopes."""
    unit = float(np.dot(weights, ones * ones))
    mixed = ramps @ (weights * ones)
    square = (ramps * ramps) @ weights
    of_ones = float(np.dot(weights, ones * values))
    of_ramps = ramps @ (weights * values)
    determinant = unit * square - mixed * mixed
    slopes = (unit * of_ramps - mixed * of_ones) / determinant
    return (of_ones - slopes * mixed) / unit, slopes


def _whitened(values: FloatArray, memory: float) -> FloatArray:
    """[..., n] → [..., n] innovations; the first is scaled to the same variance."""
    found = values.copy()
    found[..., 1:] -= memory * values[..., :-1]
    found[..., 0] *= math.sqrt(1.0 - memory * memory)
    return found


_innovations = _whitened


def _noise(residuals: FloatArray, least: float) -> tuple[float, float]:
    """Lag-1 autocorrelation of the residuals and the std of their innovations, both robust."""
    spread = max(MAD_CONSISTENCY * float(np.median(np.abs(residuals))), least)
    cut = np.clip(residuals, -3.0 * spread, 3.0 * spread)
    squares = float(np.dot(cut, cut))
    memory = float(np.dot(cut[1:], cut[:-1])) / squares if squares > 0.0 else 0.0
    memory = min(MAX_AUTOCORRELATION, max(0.0, memory))
    innovations = _whitened(residuals, memory)
    return memory, max(MAD_CONSISTENCY * float(np.median(np.abs(innovations))), least)


def _least_noise(values: FloatArray) -> float:
    usual = LEAST_NOISE * float(np.ptp(without_spikes(values)))
    return max(usual, LEAST_OF_ALL * float(np.ptp(values)), float(np.finfo(float).tiny))


def _log_density(residuals: FloatArray, spread: float) -> FloatArray:
    """Of Student's t, but for a constant."""
    logs: FloatArray = -(FREEDOM + 1.0) / 2.0 * np.log1p((residuals / spread) ** 2 / FREEDOM)
    return logs
