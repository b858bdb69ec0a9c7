"""AReaL 1.0.4: behave_imp_weight, behave_approx_kl and what is filtered, as AReaL defines them.

In: UnmaskedTokens. Out: AliasValues. Source: areal/utils/functional/functional.py and
areal/trainer/ppo/actor.py.
"""

from __future__ import annotations

import math

import numpy as np

from driftscope_probes.mismatch.aliases.alias_values import (
    AliasValues,
    alias_values,
    biggest,
    mean,
    smallest,
)
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.arrays import FloatArray
from driftscope_probes.mismatch.k3 import k3_terms

# Rejection sampling: level token, action mask, metric ratio, upper bound 5.
UPPER = 5.0
# F(τ = 2): a ratio beyond 2 either way.
EXTREME_TAU = math.log(2.0)


def areal(tokens: UnmaskedTokens) -> AliasValues:
    """Flaws, kept: behave_approx_kl is +Δ, so a KL has the opposite sign of everyone else's k1;
    weights and KL are averaged over the kept tokens only, which leaves out exactly the tokens that
    matter; a non-finite Δ becomes 0, so a broken engine reads as a perfect one.
    """
    diff = finite_difference(tokens)
    ratio = np.exp(diff)
    kept = ratio <= UPPER
    values = {"rs_filtered_fraction": mean(~kept)}
    for name, of_kept in (("behave_imp_weight", ratio[kept]), ("behave_approx_kl", diff[kept])):
        values |= {
            f"{name}/avg": mean(of_kept),
            f"{name}/min": smallest(of_kept),
            f"{name}/max": biggest(of_kept),
        }
    values["rollout_train_k3_kl"] = mean(k3_terms(diff))
    values["rollout_train_extreme_frac_tau2"] = mean(np.abs(diff) > EXTREME_TAU)
    return alias_values(values)


def finite_difference(tokens: UnmaskedTokens) -> FloatArray:
    """[unmasked] Δ with 0 for NaN and the infinities, as AReaL goes on with it."""
    return np.nan_to_num(tokens.diff, nan=0.0, posinf=0.0, neginf=0.0)
