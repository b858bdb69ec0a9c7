"""Two sides' log-probabilities of the same tokens → Comparison (numbers), Profiles (plots)."""

from driftscope_probes.mismatch.comparison import (
    Comparison,
    compare,
    compare_shards,
    compare_tokens,
)
from driftscope_probes.mismatch.number import Undefined
from driftscope_probes.mismatch.report_profiles import Profiles, profiles, profiles_of
from driftscope_probes.mismatch.resampling import (
    Interval,
    RatioInterval,
    SequenceMean,
    ratio_interval,
)
from driftscope_probes.mismatch.shard import Shard, merge_shards, shard_of
from driftscope_probes.tokens import Extras

__all__ = [
    "Comparison",
    "Extras",
    "Interval",
    "Profiles",
    "RatioInterval",
    "SequenceMean",
    "Shard",
    "Undefined",
    "compare",
    "compare_shards",
    "compare_tokens",
    "merge_shards",
    "profiles",
    "profiles_of",
    "ratio_interval",
    "shard_of",
]
