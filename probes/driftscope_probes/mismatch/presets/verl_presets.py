"""verl 0.9.1's presets of RolloutCorrectionConfig, each as the tokens it drops and clips.

In: UnmaskedTokens. Out: TokenFates by preset. Source: verl/trainer/config/algorithm.py.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.aliases.verl import VerlCorrection, raw_weights
from driftscope_probes.mismatch.aliases.verl_rejection import VerlRejection, kept_tokens
from driftscope_probes.mismatch.arrays import BoolArray
from driftscope_probes.mismatch.presets.effect import TokenFates, nothing

SEQUENCE_PRODUCT = VerlRejection("seq_sum_k1", 2.0, 0.5)
GEOMETRIC = VerlRejection("seq_mean_k1", 1.001, 0.999)
K3 = VerlRejection("seq_mean_k3", 0.01)


def _correction(
    level: Literal["token", "sequence"] | None,
    *rejections: VerlRejection,
    upper: float = 2.0,
    lower: float | None = None,
) -> VerlCorrection:
    return VerlCorrection(level, upper, lower, rejections)


ICEPOP = _correction("token", upper=5.0, lower=0.5)

VERL_PRESETS: MappingProxyType[str, VerlCorrection] = MappingProxyType(
    {
        "decoupled_token_is": _correction("token"),
        "decoupled_seq_is": _correction("sequence"),
        "decoupled_token_icepop": ICEPOP,
        "decoupled_seq_is_rs": _correction("sequence", SEQUENCE_PRODUCT),
        "decoupled_geo_rs": _correction(None, GEOMETRIC),
        "decoupled_geo_rs_seq_tis": _correction("sequence", GEOMETRIC),
        "decoupled_geo_rs_token_tis": _correction("token", GEOMETRIC),
        "decoupled_k3_rs": _correction(None, K3),
        "decoupled_k3_rs_seq_tis": _correction("sequence", K3),
        "decoupled_k3_rs_token_tis": _correction("token", K3),
        "bypass_ppo_clip": _correction(None),
        "bypass_ppo_clip_geo_rs": _correction(None, GEOMETRIC),
        "bypass_ppo_clip_k3_rs": _correction(None, K3),
        "bypass_pg_is": _correction("sequence"),
        "bypass_pg_token_icepop": ICEPOP,
        "bypass_pg_geo_rs": _correction(None, GEOMETRIC),
        "bypass_pg_geo_rs_seq_tis": _correction("sequence", GEOMETRIC),
        "bypass_pg_geo_rs_token_tis": _correction("token", GEOMETRIC),
        "disabled": _correction(None),
    }
)


def verl_fates(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    """PPO's own clip of the loss is no part of a preset and is not counted.

    The bypass presets compare the rollout with the policy being updated, which is the trainer's
    at the first minibatch of a step: that is what is shown.
    """
    distinct = set(VERL_PRESETS.values())
    kept = {r: kept_tokens(tokens, r) for correction in distinct for r in correction.rejections}
    fates = {correction: _fates(tokens, correction, kept) for correction in distinct}
    return {name: fates[correction] for name, correction in VERL_PRESETS.items()}


def _fates(
    tokens: UnmaskedTokens, correction: VerlCorrection, kept: dict[VerlRejection, BoolArray]
) -> TokenFates:
    dropped, clipped = nothing(tokens), nothing(tokens)
    for rejection in correction.rejections:
        dropped |= ~kept[rejection]
    if correction.rollout_is is not None:
        weights = raw_weights(tokens, correction.rollout_is)
        if correction.lower is None:
            clipped |= weights > correction.upper
        else:
            dropped |= ~((weights >= correction.lower) & (weights <= correction.upper))
    return TokenFates(dropped, clipped)
