"""Plots: the one picture of a cause's evidence.

In: an Examination, or counts. Out: a Plot of at most MAX_POINTS points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import Plot
from driftscope_probes.diagnosis.signals import Signals

#: More than a screen shows apart.
MAX_POINTS = 256
NOISE = "typical noise on the logits, nats"


def _plain(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def bars_by_sequence(values: NDArray[Any], title: str, y_label: str) -> Plot:
    """One bar per sequence, or per equal number of neighbours where there are many."""
    parts = np.array_split(np.asarray(values, np.float64), min(MAX_POINTS, max(1, len(values))))
    starts = np.cumsum([0] + [len(part) for part in parts])[:-1]
    return Plot(
        "bars",
        title,
        "sequence",
        y_label,
        _plain(starts),
        _plain(np.array([p.mean() for p in parts])),
    )


def noise_by(signals: Signals, coordinate: NDArray[Any], x_label: str) -> Plot:
    """Typical |Δ| / (1 - p) along a coordinate [body], in bins of equal counts at most."""
    body = signals.body
    order = np.argsort(coordinate, kind="stable")
    ordered = np.asarray(coordinate)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if starts.size > MAX_POINTS // 2:
        starts = np.unique(np.linspace(0, ordered.size, MAX_POINTS // 2 + 1)[:-1].astype(np.int64))
    noise = [
        float(np.median(np.abs(part))) / 0.6745
        for part in np.split(body.residual[order], starts[1:])
    ]
    return Plot(
        "line",
        f"noise by {x_label}",
        x_label,
        NOISE,
        _plain(ordered[starts]),
        _plain(np.array(noise)),
    )


def noise_by_sequence(signals: Signals) -> Plot:
    body = signals.body
    starts = np.flatnonzero(np.concatenate([[True], body.sequence[1:] != body.sequence[:-1]]))
    noise = np.array(
        [float(np.median(np.abs(part))) / 0.6745 for part in np.split(body.residual, starts[1:])]
    )
    shown = np.unique(
        np.linspace(0, starts.size - 1, min(MAX_POINTS, starts.size)).astype(np.int64)
    )
    return Plot(
        "bars",
        "noise by sequence",
        "sequence",
        NOISE,
        _plain(body.sequence[starts[shown]]),
        _plain(noise[shown]),
    )


def trainer_on_rollout(signals: Signals) -> Plot:
    body = signals.body
    shown = np.unique(
        np.linspace(0, body.tokens - 1, min(MAX_POINTS, body.tokens)).astype(np.int64)
    )
    shown = shown[np.argsort(body.rollout[shown], kind="stable")]
    return Plot(
        "points",
        "trainer against engine",
        "engine's log-probability, nats",
        "trainer's log-probability, nats",
        _plain(body.rollout[shown]),
        _plain(body.trainer[shown]),
    )


def noise_by_certainty(signals: Signals) -> Plot:
    """|Δ| by p: rounding falls as 1 - p."""
    body = signals.body
    edges = np.linspace(0.0, 1.0, 21)
    group = np.minimum(np.searchsorted(edges, body.certainty, side="right") - 1, 19)
    y = [
        float(np.sqrt(np.mean(body.delta[group == index] ** 2))) if (group == index).any() else None
        for index in range(20)
    ]
    return Plot(
        "line",
        "root mean square Δ by probability",
        "engine's probability of the token",
        "Δ, nats",
        _plain((edges[1:] + edges[:-1]) / 2),
        tuple(None if value is None else round(value, 6) for value in y),
    )
