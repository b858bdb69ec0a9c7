"""Fine logarithmic buckets of numbers from 0 on: narrow enough to find a quantile's few neighbours.

In: one float64. Out: its bucket. Coarser histograms are sums over these buckets.
"""

from __future__ import annotations

from driftscope_probes.mismatch.fused.compiled import inlined
from driftscope_probes.mismatch.fused.float_bits import bits_of
from driftscope_probes.mismatch.fused.layouts import SHIFT


@inlined
def fine_bucket(value: float) -> int:
    """One bit pattern down, so that a number on an edge lies in the bucket below the edge."""
    return ((bits_of(value) - 1) >> SHIFT) + 1
