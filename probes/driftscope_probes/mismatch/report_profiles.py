"""What the plots of a report show: distributions and profiles of Δ, bounded in size.

In: the same arrays as a comparison. Out: Profiles, at most a few hundred numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from driftscope_probes.mismatch.arrays import IntArray
from driftscope_probes.mismatch.binned_differences import BinnedDifferences
from driftscope_probes.mismatch.difference_scatter import DifferenceScatter, difference_scatter
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram, abs_diff_histogram
from driftscope_probes.mismatch.index_profile import index_profile_from_smallest
from driftscope_probes.mismatch.lag_buckets import LagBuckets, lag_buckets
from driftscope_probes.mismatch.paired_logprobs import paired_logprobs
from driftscope_probes.mismatch.probability_profile import probability_profile
from driftscope_probes.mismatch.response_index_profile import response_index_profile
from driftscope_probes.mismatch.sequence_points import SequencePoints, sequence_points
from driftscope_probes.mismatch.sequence_sums import sequence_sums
from driftscope_probes.mismatch.side_arrays import SideArrays, checked_side_arrays
from driftscope_probes.mismatch.token_differences import TokenDifferences, token_differences
from driftscope_probes.trace import Pair


@dataclass(frozen=True, slots=True)
class Profiles:
    abs_diff_histogram: Histogram
    by_response_index: BinnedDifferences
    by_rollout_prob: BinnedDifferences
    sequences: SequencePoints
    scatter: DifferenceScatter
    by_position: BinnedDifferences | None = None  # where position_ids were given
    by_turn: BinnedDifferences | None = None  # where turn_ids were given
    by_lag: LagBuckets | None = None  # where behavior_version was given

    def to_dict(self) -> dict[str, Any]:
        optional = {
            "by_position": self.by_position,
            "by_turn": self.by_turn,
            "by_lag": self.by_lag,
        }
        return {
            "abs_diff_histogram": self.abs_diff_histogram.to_dict(),
            "by_response_index": self.by_response_index.to_dict(),
            "by_rollout_prob": self.by_rollout_prob.to_dict(),
            "sequences": self.sequences.to_dict(),
            "scatter": self.scatter.to_dict(),
            **{name: part.to_dict() for name, part in optional.items() if part is not None},
        }


def profiles(
    rollout_logprobs: ArrayLike,
    trainer_logprobs: ArrayLike,
    cu_seqlens: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    side: SideArrays | None = None,
) -> Profiles:
    """Arguments and errors as for compare()."""
    pair = paired_logprobs(rollout_logprobs, trainer_logprobs, cu_seqlens, mask)
    beside = checked_side_arrays(side, pair)
    tokens, found = token_differences(pair), token_pass(pair)
    sums = sequence_sums(found)
    return Profiles(
        abs_diff_histogram=abs_diff_histogram(found),
        by_response_index=response_index_profile(tokens),
        by_rollout_prob=probability_profile(tokens),
        sequences=sequence_points(sums),
        scatter=difference_scatter(tokens),
        by_position=_by_index(tokens, beside.position_ids),
        by_turn=_by_index(tokens, beside.turn_ids),
        by_lag=None if beside.lag is None else lag_buckets(sums, beside.lag),
    )


def _by_index(tokens: TokenDifferences, index: IntArray | None) -> BinnedDifferences | None:
    return None if index is None else index_profile_from_smallest(tokens, tokens.kept(index))


def profiles_of_pair(pair: Pair) -> Profiles:
    return profiles(
        pair.rollout.logprobs, pair.trainer.logprobs, pair.rollout.cu_seqlens, pair.rollout.mask
    )
