"""Fine logarithmic buckets of numbers from 0 on: narrow enough to find a quantile's few neighbours.

In: one float64. Out: its bucket. Coarser histograms are sums over these buckets.
"""

from __future__ import annotations

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.exp_parts import MANTISSA_BITS
from driftscope_probes.mismatch.fused.float_bits import bits_of

# 64 buckets an octave, each about 1.1 % wide: a quantile's bucket holds about one token in a
# hundred. Whole numbers up to 64 have a bucket each.
BITS_IN_BUCKET = 6
SHIFT = MANTISSA_BITS - BITS_IN_BUCKET
BUCKETS = (0x7FF << BITS_IN_BUCKET) + 1  # all finite numbers; bucket 0 is exactly 0


@inlined
def fine_bucket(value: float) -> int:
    """One bit pattern down, so that a number on an edge lies in the bucket below the edge."""
    return ((bits_of(value) - 1) >> SHIFT) + 1
