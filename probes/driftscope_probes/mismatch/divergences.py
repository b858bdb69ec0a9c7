"""χ² divergence of the importance weights, per token and per sequence, as verl bounds it.

In: SequenceSums, DivergenceSums and TokenCounts. Out: mean(ρ²) − 1, and how many terms sit at the
bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.chi_square_terms import CHI_SQUARE_BOUND, chi_square_terms
from driftscope_probes.mismatch.divergence_sums import DivergenceSums
from driftscope_probes.mismatch.number import Number, mean
from driftscope_probes.mismatch.sequence_sums import SequenceSums
from driftscope_probes.mismatch.token_counts import TokenCounts


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """verl's chi2_token and chi2_seq clamp log-ratios to ±20 nats; at +20 one term is e^40 = 2e17.

    A saturated number is a bound, not a measurement, hence the counts beside it.
    """

    chi2_token: Number
    chi2_token_saturated: int  # tokens with |Δ| > 20
    chi2_seq: Number
    chi2_seq_saturated: int  # sequences with |S_i| > 20


def chi_square(sums: SequenceSums, divergences: DivergenceSums, counts: TokenCounts) -> ChiSquare:
    return ChiSquare(
        chi2_token=sums.token_mean(divergences.chi2),
        chi2_token_saturated=counts.chi2_saturated,
        chi2_seq=mean(chi_square_terms(sums.diff)),
        chi2_seq_saturated=int(np.count_nonzero(np.abs(sums.diff) > CHI_SQUARE_BOUND)),
    )
