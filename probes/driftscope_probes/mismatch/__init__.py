"""Two sides' log-probabilities of the same tokens → Comparison (numbers), Profiles (plots)."""

from driftscope_probes.mismatch.comparison import Comparison, compare, compare_pair
from driftscope_probes.mismatch.number import Undefined
from driftscope_probes.mismatch.report_profiles import Profiles, profiles, profiles_of_pair
from driftscope_probes.mismatch.resampling import Interval, RatioInterval, ratio_interval
from driftscope_probes.mismatch.sequence_mean import SequenceMean

__all__ = [
    "Comparison",
    "Interval",
    "Profiles",
    "RatioInterval",
    "SequenceMean",
    "Undefined",
    "compare",
    "compare_pair",
    "profiles",
    "profiles_of_pair",
    "ratio_interval",
]
