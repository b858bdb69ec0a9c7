"""Which numbers of a comparison are followed over steps, and the scale on which they are compared.

In: values of one number. Out: the same on a scale where steps of equal size mean equal things.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftscope_probes.mismatch.number import FloatArray
from driftscope_probes.numbers import NUMBERS, ScaleKind

#: Stands for log 0. Far below any log of a measured difference, and finite: one bitwise-equal step
#: among others is then an outlier like any other.
LOG_OF_ZERO: Final = math.log(1e-300)


@dataclass(frozen=True, slots=True)
class Scale:
    kind: ScaleKind
    ideal: float = 0.0

    def transformed(self, values: FloatArray) -> FloatArray:
        """[steps] → [steps]; log maps an exact ideal (bitwise-equal steps) to LOG_OF_ZERO."""
        distance = values - self.ideal
        if self.kind == "linear":
            return distance
        # ESS and correlation reach 1 from below; rounding may carry them beyond it, to nothing.
        distance = np.abs(distance)
        logs: FloatArray = np.log(np.maximum(distance, math.exp(LOG_OF_ZERO)))
        return logs


#: Names in Comparison.to_dict(), in the order in which they are shown.
SERIES: Final = (
    *("abs_diff_mean", "abs_diff_p99", "abs_diff_max", "prob_abs_diff_mean", "prob_pearson"),
    *("kl_k1", "kl_k3", "kl_k3_entropy_ratio", "token_mult_prob_error", "ess_ratio_token"),
    *("abs_diff_share_above_ln2", "confident_disagreement_share", "bitwise_equal_fraction"),
    *("seq_logratio_slope_per_1000_tokens", "rollout_log_ppl", "nonfinite_tokens"),
    # Only where behavior_version and weights_version were pushed.
    *("lag_mean", "stale_token_share", "lag0_abs_diff_mean", "staleness_share"),
)


def _scales() -> Iterator[tuple[str, Scale]]:
    for name in SERIES:
        row = NUMBERS[name]
        assert row.scale is not None, f"{name} has no scale"
        yield name, Scale(row.scale, row.ideal)


SCALES: Final[Mapping[str, Scale]] = dict(_scales())
