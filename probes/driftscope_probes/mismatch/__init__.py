"""Two sides' log-probabilities of the same tokens → Comparison (numbers), Profiles (plots)."""

from driftscope_probes.mismatch.comparison import Comparison, compare, compare_pair
from driftscope_probes.mismatch.number import Undefined
from driftscope_probes.mismatch.report_profiles import Profiles, profiles, profiles_of_pair
from driftscope_probes.mismatch.resampling import (
    Interval,
    RatioInterval,
    SequenceMean,
    ratio_interval,
)
from driftscope_probes.mismatch.shard import Shard, merge_shards, shard_of
from driftscope_probes.mismatch.tokens import SideArrays

__all__ = [
    "Comparison",
    "Interval",
    "Profiles",
    "RatioInterval",
    "SequenceMean",
    "Shard",
    "SideArrays",
    "Undefined",
    "compare",
    "compare_pair",
    "merge_shards",
    "profiles",
    "profiles_of_pair",
    "ratio_interval",
    "shard_of",
]
