"""Importance ratios of whole sequences: the product of their token ratios and its geometric mean.

In: SequenceSums. Out: plain numbers over the sequences that hold any token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.number import Number, maximum, mean, minimum
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True)
class SequenceRatio:
    seq_ratio_mean: Number  # of the products exp(S_i); the expectation is 1
    seq_ratio_min: Number
    seq_ratio_max: Number
    seq_geo_ratio_mean: Number  # of the geometric means exp(S_i / n_i)
    seq_geo_ratio_min: Number
    seq_geo_ratio_max: Number


def sequence_ratio(sums: SequenceSums) -> SequenceRatio:
    with np.errstate(over="ignore"):
        product, geometric = np.exp(sums.diff), np.exp(sums.diff / sums.length)
    return SequenceRatio(
        seq_ratio_mean=mean(product),
        seq_ratio_min=minimum(product),
        seq_ratio_max=maximum(product),
        seq_geo_ratio_mean=mean(geometric),
        seq_geo_ratio_min=minimum(geometric),
        seq_geo_ratio_max=maximum(geometric),
    )
