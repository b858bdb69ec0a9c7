"""Mean difference per bin of some other quantity of the token (its place, its probability).

In: a bin number per token and TokenDifferences. Out: BinnedDifferences, a few dozen numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.token_differences import TokenDifferences


@dataclass(frozen=True, slots=True, eq=False)
class BinnedDifferences:
    """Bin i holds edges[i] <= x < edges[i + 1]; means of empty bins are NaN here, null in JSON."""

    edges: FloatArray  # [bins + 1]
    counts: IntArray  # [bins] tokens
    abs_diff_mean: FloatArray  # [bins] nats
    diff_mean: FloatArray  # [bins] nats

    def to_dict(self) -> dict[str, Any]:
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "abs_diff_mean": _json_numbers(self.abs_diff_mean),
            "diff_mean": _json_numbers(self.diff_mean),
        }


def binned_differences(
    tokens: TokenDifferences, bin_of_token: IntArray, edges: FloatArray
) -> BinnedDifferences:
    bins = edges.size - 1
    assert not bin_of_token.size or 0 <= bin_of_token.min() <= bin_of_token.max() < bins
    counts = np.bincount(bin_of_token, minlength=bins)
    with np.errstate(invalid="ignore", over="ignore"):
        abs_diff = np.bincount(bin_of_token, tokens.abs_diff, minlength=bins) / counts
        diff = np.bincount(bin_of_token, tokens.diff, minlength=bins) / counts
    return BinnedDifferences(edges=edges, counts=counts, abs_diff_mean=abs_diff, diff_mean=diff)


def _json_numbers(values: FloatArray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
