"""Which numbers of a comparison are followed over steps, and the scale on which they are compared.

In: values of one number. Out: the same on a scale where steps of equal size mean equal things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from driftscope_probes.mismatch.number import FloatArray

Scale = Literal["log", "linear"]
#: Stands for log 0. Far below any log of a measured difference, and finite: one bitwise-equal step
#: among others is then an outlier like any other.
LOG_OF_ZERO: Final = math.log(1e-300)


@dataclass(frozen=True, slots=True)
class Series:
    """log: the logarithm of the distance from `ideal`, so that a doubling is the same everywhere.
    linear: the value itself, for signed numbers, shares and counts, which are often exactly 0."""

    scale: Scale
    ideal: float = 0.0

    def transformed(self, values: FloatArray) -> FloatArray:
        """[steps] → [steps]; log takes an exact ideal (bitwise-equal steps) for LOG_OF_ZERO."""
        distance = values - self.ideal
        if self.scale == "linear":
            return distance
        # ESS and correlation reach 1 from below; rounding may carry them beyond it, to nothing.
        distance = np.abs(distance)
        found: FloatArray = np.log(np.maximum(distance, math.exp(LOG_OF_ZERO)))
        return found


_LOG, _LOG_FROM_ONE = Series("log"), Series("log", ideal=1.0)
_LINEAR, _LINEAR_FROM_ONE = Series("linear"), Series("linear", ideal=1.0)
SERIES_SCALES: Final[Mapping[str, Series]] = {
    "abs_diff_mean": _LOG,
    "abs_diff_p99": _LOG,
    "abs_diff_max": _LOG,
    "prob_abs_diff_mean": _LOG,
    "prob_pearson": _LOG_FROM_ONE,
    "kl_k1": _LINEAR,
    "kl_k3": _LOG,
    "kl_k3_entropy_ratio": _LOG,
    "token_mult_prob_error": _LOG_FROM_ONE,
    "ess_ratio_token": _LOG_FROM_ONE,
    "abs_diff_share_above_ln2": _LINEAR,
    "confident_disagreement_share": _LINEAR,
    "bitwise_equal_fraction": _LINEAR_FROM_ONE,
    "seq_logratio_slope_per_1000_tokens": _LINEAR,
    "rollout_log_ppl": _LINEAR,
    "nonfinite_tokens": _LINEAR,
    # Only where behavior_version and weights_version were given.
    "lag_mean": _LINEAR,
    "stale_token_share": _LINEAR,
    "lag0_abs_diff_mean": _LOG,
    "staleness_share": _LINEAR,
}
#: Names in Comparison.to_dict().
SERIES: Final[tuple[str, ...]] = tuple(SERIES_SCALES)
