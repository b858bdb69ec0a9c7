"""Staleness: which share of the difference comes from old weights rather than from two engines.

In: LagBuckets. Out: the floor at lag 0 and what lies above it at other lags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.lag_buckets import LagBuckets
from driftscope_probes.mismatch.number import NO_TOKENS, Number, Undefined, finite

NOTHING_FRESH = Undefined("no token was rolled out by the current weights: there is no floor")
NOTHING_STALE = Undefined("every token was rolled out by the current weights")
NO_DIFFERENCE = Undefined("the stale tokens show no difference at all")


@dataclass(frozen=True, slots=True)
class Staleness:
    """As martingale 0.2.0: floor = mean |Δ| at lag 0,
    share = Σ max(0, mean |Δ| at the lag − floor) · tokens / Σ mean |Δ| at the lag · tokens,
    both sums over the lags above 0.
    """

    lag_mean: Number  # over tokens, train steps
    lag_max: int | Undefined
    stale_token_share: Number  # of tokens, lag above 0
    lag0_abs_diff_mean: Number  # the floor, nats
    staleness_share: Number


def staleness(buckets: LagBuckets) -> Staleness:
    if not buckets.lag.size:
        return Staleness(NO_TOKENS, NO_TOKENS, NO_TOKENS, NO_TOKENS, NO_TOKENS)
    total = int(buckets.tokens.sum())
    floor: Number = NOTHING_FRESH
    if buckets.lag[0] == 0:
        floor = finite(buckets.abs_diff_mean[0])
    return Staleness(
        lag_mean=float(np.dot(buckets.lag, buckets.tokens)) / total,
        lag_max=int(buckets.lag[-1]),
        stale_token_share=int(buckets.tokens[buckets.lag > 0].sum()) / total,
        lag0_abs_diff_mean=floor,
        staleness_share=_share(buckets, floor),
    )


def _share(buckets: LagBuckets, floor: Number) -> Number:
    stale = buckets.lag > 0
    if not stale.any():
        return NOTHING_STALE
    if isinstance(floor, Undefined):
        return floor
    means, tokens = buckets.abs_diff_mean[stale], buckets.tokens[stale]
    with np.errstate(over="ignore", invalid="ignore"):
        whole = float(np.dot(means, tokens))
        above = float(np.dot(np.maximum(means - floor, 0.0), tokens))
    return finite(above / whole) if whole else NO_DIFFERENCE
