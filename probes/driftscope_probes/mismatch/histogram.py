"""Histogram of |Δ| in fixed logarithmic buckets: two of them add up, on whichever machine.

In: |Δ| [tokens], float64. Out: counts per bucket, with a bucket for exact zeros and one beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray

# Edges are 2^k and 1.5·2^k: exact in binary, so that the bucket is read off the top bits of the
# number and no rounding of a logarithm can put a token on the other side of an edge.
LOWEST_EXPONENT = -40  # 9.1e-13 nats: far below float32 rounding of any but certain tokens
HIGHEST_EXPONENT = 6  # 64 nats: beyond it one side holds the sampled token for impossible
BUCKETS_PER_OCTAVE = 2  # six to seven bars per decade

MANTISSA_BITS = 52  # IEEE 754 binary64
EXPONENT_BIAS = 1023
SHIFT = MANTISSA_BITS - (BUCKETS_PER_OCTAVE.bit_length() - 1)
BUCKETS = (HIGHEST_EXPONENT - LOWEST_EXPONENT) * BUCKETS_PER_OCTAVE
FIRST_TOP_BITS = (LOWEST_EXPONENT + EXPONENT_BIAS) * BUCKETS_PER_OCTAVE

EDGES: tuple[float, ...] = tuple(
    (1 + index % BUCKETS_PER_OCTAVE / BUCKETS_PER_OCTAVE)
    * 2.0 ** (LOWEST_EXPONENT + index // BUCKETS_PER_OCTAVE)
    for index in range(BUCKETS + 1)
)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Bucket i holds EDGES[i] < |Δ| <= EDGES[i + 1]: upper edges belong to it, as in Prometheus."""

    zero: int  # |Δ| exactly 0
    below: int  # 0 < |Δ| <= EDGES[0]
    counts: IntArray  # [BUCKETS]
    above: int  # |Δ| > EDGES[-1]
    abs_diff_sum: float  # nats

    def merged(self, other: Histogram) -> Histogram:
        return Histogram(
            zero=self.zero + other.zero,
            below=self.below + other.below,
            counts=self.counts + other.counts,
            above=self.above + other.above,
            abs_diff_sum=self.abs_diff_sum + other.abs_diff_sum,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "edges": list(EDGES),
            "zero": self.zero,
            "below": self.below,
            "counts": self.counts.tolist(),
            "above": self.above,
            "abs_diff_sum": self.abs_diff_sum if np.isfinite(self.abs_diff_sum) else None,
        }


def abs_diff_histogram(abs_diff: FloatArray) -> Histogram:
    nonzero = abs_diff[abs_diff > 0]
    # One bit pattern down moves a number that lies on an edge into the bucket below the edge.
    top_bits = (nonzero.view(np.int64) - 1) >> SHIFT
    place = np.clip(top_bits - FIRST_TOP_BITS, -1, BUCKETS) + 1
    counts = np.bincount(place, minlength=BUCKETS + 2)
    with np.errstate(over="ignore"):
        total = float(abs_diff.sum())
    return Histogram(
        zero=abs_diff.size - nonzero.size,
        below=int(counts[0]),
        counts=counts[1:-1],
        above=int(counts[-1]),
        abs_diff_sum=total,
    )
