"""Plots: the one picture of a cause's evidence.

In: an Examination. Out: a Plot of at most MAX_POINTS points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.body import Ints, typical
from driftscope_probes.diagnosis.cause import Plot
from driftscope_probes.diagnosis.examination import Examination

#: More than a screen shows apart.
MAX_POINTS = 256
#: Distances from the end beyond this are one.
LAST_TOKENS = 64
NOISE = "typical noise on the logits, nats"


def noise_by_index(seen: Examination) -> Plot:
    return _noise_by(seen, seen.places.body.index, "index in the response")


def noise_by_position(seen: Examination) -> Plot:
    positions = seen.places.positions
    if positions is None:
        return noise_by_index(seen)
    return _noise_by(seen, positions, "absolute position")


def noise_by_end(seen: Examination) -> Plot:
    distance = np.minimum(seen.places.body.from_end, LAST_TOKENS)
    return _noise_by(seen, distance, "distance from the end, tokens")


def noise_by_turn(seen: Examination) -> Plot:
    turns = seen.signals.extras.turn_ids
    if turns is None:
        return noise_by_index(seen)
    return _noise_by(seen, turns[seen.places.body.token].astype(np.int64), "turn")


def noise_by_sequence(seen: Examination) -> Plot:
    return _noise_by(seen, seen.places.body.sequence, "sequence", "bars")


def noise_by_length(seen: Examination) -> Plot:
    lengths = seen.signals.response_lengths[seen.places.body.sequence]
    return _noise_by(seen, lengths, "tokens of the sequence")


def trainer_on_rollout(seen: Examination) -> Plot:
    body = seen.signals.body
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


def noise_by_certainty(seen: Examination) -> Plot:
    """|Δ| by p: rounding falls as 1 - p."""
    body = seen.signals.body
    edges = np.linspace(0.0, 1.0, 21)
    group = np.minimum(np.searchsorted(edges, body.certainty, side="right") - 1, 19)
    counts = np.bincount(group, minlength=20)
    squares = np.bincount(group, body.delta**2, minlength=20)
    return Plot(
        "line",
        "root mean square Δ by probability",
        "engine's probability of the token",
        "Δ, nats",
        _plain((edges[1:] + edges[:-1]) / 2),
        tuple(
            round(float(np.sqrt(total / count)), 6) if count else None
            for total, count in zip(squares, counts, strict=True)
        ),
    )


def impossible_by_sequence(seen: Examination) -> Plot:
    impossible = seen.signals.impossible
    rows = np.unique(
        np.concatenate([impossible.rows, impossible.rollout.positive, impossible.trainer.positive])
    )
    return _rows_by_sequence(seen, rows, "values that are no log-probabilities, by sequence")


def other_ids_by_sequence(seen: Examination) -> Plot:
    engine, trained = seen.observed.rollout_token_ids, seen.signals.extras.token_ids
    if engine is None or trained is None:
        return noise_by_sequence(seen)
    return _rows_by_sequence(seen, np.flatnonzero(engine != trained), "other ids, by sequence")


def _rows_by_sequence(seen: Examination, rows: Ints, title: str) -> Plot:
    """One bar per sequence, or per equal number of neighbours where there are many."""
    tokens = seen.signals.tokens
    counts = np.bincount(
        np.searchsorted(tokens.cu_seqlens, rows, side="right") - 1, minlength=tokens.sequences
    )
    parts = np.array_split(counts.astype(np.float64), min(MAX_POINTS, max(1, counts.size)))
    starts = np.cumsum([0] + [part.size for part in parts])[:-1]
    return Plot(
        "bars",
        title,
        "sequence",
        "tokens",
        _plain(starts),
        _plain(np.array([part.mean() for part in parts])),
    )


def _noise_by(seen: Examination, coordinate: Ints, x_label: str, kind: Any = "line") -> Plot:
    """Typical |Δ| / (1 - p) along a coordinate, in MAX_POINTS bins of equal counts at most."""
    body = seen.places.body
    order = np.argsort(coordinate, kind="stable")
    ordered = coordinate[order]
    if ordered.size == 0:
        return Plot(kind, f"noise by {x_label}", x_label, NOISE, (), ())
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if starts.size > MAX_POINTS:
        starts = np.unique(np.linspace(0, ordered.size, MAX_POINTS + 1)[:-1].astype(np.int64))
    noise = [typical(part) for part in np.split(body.residual[order], starts[1:])]
    return Plot(
        kind,
        f"noise by {x_label}",
        x_label,
        NOISE,
        _plain(ordered[starts]),
        _plain(np.array(noise)),
    )


def _plain(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
