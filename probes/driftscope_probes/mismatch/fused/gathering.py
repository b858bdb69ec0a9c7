"""The second, light read of the tokens: collects what lies in the buckets that hold a quantile.

In: PairedLogprobs and the buckets wanted. Out: the |Δ| and the ULP distances that lie in them.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.fused.layouts import (
    ODDITIES,
    Wanted,
    as_compiled,
    new_buckets,
    new_marks,
    new_scratch,
)
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs


def gathered(
    pair: PairedLogprobs, wanted: tuple[Wanted, Wanted], sizes: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """|Δ| and ULP distances in the wanted buckets of each, which hold `sizes` of them."""
    from driftscope_probes.mismatch.fused.wanted_values import gather  # loads numba

    found = np.empty(sizes[0]), np.empty(sizes[1])
    gather(
        *as_compiled(pair),
        wanted,
        found,
        new_scratch(),
        new_buckets(),
        new_marks(),
        np.zeros(1, ODDITIES),
    )
    return found
