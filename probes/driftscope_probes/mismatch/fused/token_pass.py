"""The fused pass: every sequence block by block, every sum, count, extreme and bucket in one read.

In: Tokens. Out: TokenPass, a few numbers per sequence and two histograms.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.fused.layouts import (
    BITS_OF_INFINITY,
    BUCKETS,
    COUNTS,
    EXTREMES,
    ODDITIES,
    ROWS,
    SPREAD,
    SUMS,
    TokenPass,
    as_compiled,
    new_workspace,
)
from driftscope_probes.tokens import Tokens


def token_pass(pair: Tokens) -> TokenPass:
    """Holds nothing as long as the batch, but for a copy of arrays of unequal dtypes."""
    # Here, as it loads numba: half a second that importing a comparison does not take.
    from driftscope_probes.mismatch.fused.sequences import add_sequences

    sequences = pair.cu_seqlens.size - 1
    found = TokenPass(
        rows=np.zeros(sequences, ROWS),
        sums=np.zeros(sequences, SUMS),
        spread=np.zeros(sequences, SPREAD),
        counts=np.zeros(1, COUNTS),
        extremes=np.zeros(1, EXTREMES),
        oddities=np.zeros(1, ODDITIES),
        abs_diff_buckets=np.zeros(BUCKETS, np.int64),
        ulp_buckets=np.zeros(BUCKETS, np.int64),
    )
    found.extremes["ratio_min"] = BITS_OF_INFINITY
    add_sequences(*as_compiled(pair), pair.cu_seqlens, new_workspace(found), found)
    return found
