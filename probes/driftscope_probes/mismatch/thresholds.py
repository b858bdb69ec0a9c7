"""The thresholds that tokens are counted and truncated at, with where each of them comes from."""

from __future__ import annotations

import math

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

# The cap C = 2 at which verl and slime truncate their weights by default.
TRUNCATED_AT = 2.0
