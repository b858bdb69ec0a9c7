"""Differences by lag: how many train steps old the weights were that rolled a sequence out.

In: SequenceSums and the lag of each given sequence. Out: LagBuckets, one entry per lag that occurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.sequence_sums import SequenceSums


@dataclass(frozen=True, slots=True, eq=False)
class LagBuckets:
    """Token means; a mean that overflows is not finite here and null in JSON."""

    lag: IntArray  # [buckets] train steps, rising
    sequences: IntArray  # [buckets]
    tokens: IntArray  # [buckets]
    abs_diff_mean: FloatArray  # [buckets] nats
    diff_mean: FloatArray  # [buckets] nats
    kl_k3: FloatArray  # [buckets] nats

    def to_dict(self) -> dict[str, Any]:
        return {
            "lag": self.lag.tolist(),
            "sequences": self.sequences.tolist(),
            "tokens": self.tokens.tolist(),
            "abs_diff_mean": _json_numbers(self.abs_diff_mean),
            "diff_mean": _json_numbers(self.diff_mean),
            "kl_k3": _json_numbers(self.kl_k3),
        }


def lag_buckets(sums: SequenceSums, lag: IntArray) -> LagBuckets:
    """lag: [sequences given]; sequences without tokens are in no bucket."""
    values, bucket = np.unique(lag[sums.sequence_index], return_inverse=True)
    tokens = np.bincount(bucket, sums.length, minlength=values.size)
    with np.errstate(over="ignore", invalid="ignore"):
        return LagBuckets(
            lag=values,
            sequences=np.bincount(bucket, minlength=values.size),
            tokens=tokens.astype(np.int64),
            abs_diff_mean=np.bincount(bucket, sums.abs_diff, minlength=values.size) / tokens,
            diff_mean=np.bincount(bucket, sums.diff, minlength=values.size) / tokens,
            kl_k3=np.bincount(bucket, sums.kl_k3, minlength=values.size) / tokens,
        )


def _json_numbers(values: FloatArray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
