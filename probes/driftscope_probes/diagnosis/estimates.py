"""Estimates: means, errors and variances that survive wild tokens and dependent ones.

In: values and their groups. Out: plain numbers.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.diagnosis.body import Floats, Ints, typical

#: Below so many sequences their sums do not say how far a mean may be off.
FEW_CLUSTERS = 12


def clustered_mean(values: Floats, sequence: Ints) -> tuple[float, float]:
    """Mean over tokens, and its standard error with sequences as the independent draws."""
    if values.size == 0:
        return 0.0, 0.0
    mean = float(values.mean())
    sums = np.bincount(sequence, values - mean)
    counts = np.bincount(sequence)
    sums = sums[counts > 0]
    clusters = sums.size
    if clusters < 2:  # one sequence: its tokens have to stand for draws
        return mean, float(values.std()) / max(1.0, float(np.sqrt(values.size)))
    variance = float(np.sum(sums**2)) * clusters / (clusters - 1)
    error = float(np.sqrt(variance)) / values.size
    if clusters < FEW_CLUSTERS:  # a variance of few sums may be small by chance
        error = max(error, float(values.std()) / float(np.sqrt(values.size)))
    return mean, error


def trimmed_rms(values: Floats, fraction: float = 0.01) -> float:
    """Root mean square without the largest hundredth: single wild tokens have tests of theirs."""
    squares = np.sort(values**2)
    kept = squares[: max(1, int(squares.size * (1 - fraction)))]
    return float(np.sqrt(kept.mean()))


def winsorised(values: Floats, deviations: float = 6.0) -> Floats:
    """Cut at so many typical deviations around the median."""
    if values.size == 0:
        return values
    centre = float(np.median(values))
    width = deviations * typical(values - centre)
    return np.clip(values, centre - width, centre + width) if width > 0 else values


def variance_of_means(values: Floats, group: Ints, least: int) -> float | None:
    """One-way F: mean square between groups over that within, groups of `least` members on."""
    counts = np.bincount(group)
    big = counts >= least
    if int(big.sum()) < 3:
        return None
    inside = big[group]
    values, group = values[inside], group[inside]
    counts = np.bincount(group)
    present = counts > 0
    sums = np.bincount(group, values)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
    groups = int(present.sum())
    within = float(np.sum((values - means[group]) ** 2)) / max(1, values.size - groups)
    between = float(np.sum(counts * (means - values.mean()) ** 2)) / max(1, groups - 1)
    return between / within if within > 0 else None
