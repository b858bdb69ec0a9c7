"""Sequence log-ratio against length: does the importance weight of a sequence run away?

In: SequenceSums. Out: points for a plot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.even_sample import even_sample
from driftscope_probes.mismatch.sequence_sums import SequenceSums

MAX_POINTS = 256
EXTREMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class SequencePoints:
    """The extremes are always among the points; the other ones are spread evenly."""

    length: IntArray  # [points] n_i
    seq_logratio: FloatArray  # [points] S_i, nats

    def to_dict(self) -> dict[str, Any]:
        return {"length": self.length.tolist(), "seq_logratio": self.seq_logratio.tolist()}


def sequence_points(sums: SequenceSums) -> SequencePoints:
    finite = np.flatnonzero(np.isfinite(sums.diff))
    places = finite[even_sample(finite.size, MAX_POINTS - EXTREMES)]
    if places.size < finite.size:
        extremes = finite[[np.argmin(sums.diff[finite]), np.argmax(sums.diff[finite])]]
        places = np.union1d(places, extremes)
    return SequencePoints(length=sums.length[places], seq_logratio=sums.diff[places])
