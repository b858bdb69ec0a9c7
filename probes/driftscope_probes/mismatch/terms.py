"""Terms of one token and the bounds that tokens are counted at; fused/ reads them from here."""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.number import FloatArray

# The truncation C = 2 that verl and slime use by default, and its inverse.
WIDE_BAND = (0.5, 2.0)
# PPO's clip ranges at ε = 0.1 and 0.2: tokens outside lose their gradient from rounding alone.
NARROW_BAND = (0.9, 1.1)
PPO_BAND = (0.8, 1.2)
# F(τ = 2) of the routing-replay paper: the share of tokens with |Δ| > ln τ.
EXTREME_DIFF = math.log(2.0)
# martingale 0.2.0: rollout probability of about one half, trainer more than 2 nats below.
CONFIDENT_ABOVE = -0.7
DISAGREES_BELOW = -2.0

# No vocabulary makes a sampled token rarer: 100 nats are e-44, a uniform choice among a million is
# 14 nats. SkyRL and vLLM's JSON write -9999.
SENTINEL_AT_MOST = -100.0
# Both sides are sure of a certain token: noise on the logits moves it by no more than the mass that
# is left to all others, and float32 says exactly 0 from 1 - 6e-8 on.
ABOUT_ZERO = -0.01

# The cap C = 2 at which verl and slime truncate their weights by default.
TRUNCATED_AT = 2.0

# Bounds of the frameworks' own metrics and presets.
SAFETY_BOUND = 20.0  # log-ratios are clamped to ± this many nats before they are exponentiated
RHO_CLAMP, RHO_UPPER = 10.0, 2.0  # open-instruct
MIS_UPPER, MILES_K3_CLAMP = 2.0, 10.0  # slime and miles
PROBABILITY_CLAMP = 1e-6  # OpenRLHF: keeps both logarithms of the binary KL finite
LINEAR_ABOVE = 50.0  # log cosh x is x − ln 2 to the last bit, well below where sinh² overflows
# numpy's own exponentials, whose last bit may differ from math.exp's.
LEAST_RATIO, LEAST_RHO = float(np.exp(-SAFETY_BOUND)), float(np.exp(-RHO_CLAMP))


# Below this |Δ| the series is used: expm1(Δ) − Δ cancels, with a relative error of about
# 2⁻⁵³ / |Δ|, and may even turn out negative near |Δ| = 1e-15. At 1e-2 both agree to 1e-14.
SERIES_BELOW = 1e-2

# Terms of ½Δ²(1 + Δ/3(1 + Δ/4(1 + …))). The first one left out is 2·Δ⁶/8! ≤ 5e-17 of the sum at
# SERIES_BELOW, which is less than half a unit in the last place of float64 (1.1e-16).
SERIES_DIVISORS = (7.0, 6.0, 5.0, 4.0, 3.0)


def k3_terms(diff: FloatArray) -> FloatArray:
    """ρ − 1 − Δ with ρ = exp(Δ): Schulman's k3 of KL(rollout‖trainer), unclamped (verl k3_kl)."""
    with np.errstate(over="ignore"):
        terms = _series(diff)
        large = np.flatnonzero(np.abs(diff) >= SERIES_BELOW)
        terms[large] = np.expm1(diff[large]) - diff[large]
    return terms


def _series(diff: FloatArray) -> FloatArray:
    factor = np.ones_like(diff)
    for divisor in SERIES_DIVISORS:
        factor *= diff / divisor
        factor += 1.0
    factor *= diff
    factor *= diff
    factor *= 0.5
    return factor


# verl's SAFETY_BOUND, in nats, for tokens and for whole sequences.
CHI_SQUARE_BOUND = 20.0


def chi_square_terms(diff: FloatArray) -> FloatArray:
    """expm1 rather than ρ² − 1, which cancels where both sides are close."""
    terms: FloatArray = np.expm1(2.0 * np.clip(diff, -CHI_SQUARE_BOUND, CHI_SQUARE_BOUND))
    return terms
