"""What each framework's rejection and truncation presets do to every token: keep, drop or clip."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from driftscope_probes.mismatch.frameworks import openrlhf, prime_rl, skyrl, slime, small_frameworks
from driftscope_probes.mismatch.frameworks.small_frameworks import (
    OPEN_INSTRUCT_CLAMP,
    OPEN_INSTRUCT_RHO_UPPER,
)
from driftscope_probes.mismatch.frameworks.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.frameworks.verl import VerlCorrection, raw_weights
from driftscope_probes.mismatch.frameworks.verl_rejection import VerlRejection, kept_tokens
from driftscope_probes.mismatch.number import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class TokenFates:
    """Both [unmasked]; a token may be clipped by one step of a preset and dropped by another."""

    dropped: BoolArray  # loses its gradient: masked, or given the weight 0
    clipped: BoolArray  # keeps it with a weight that was cut to a bound


@dataclass(frozen=True, slots=True)
class PresetEffect:
    """Shares of the unmasked tokens, and of the sequences that hold any of them."""

    tokens_dropped: float
    tokens_clipped: float  # and not dropped
    sequences_dropped: float  # every token of it dropped
    sequences_touched: float  # any token of it dropped or clipped

    def to_dict(self) -> dict[str, float | str]:
        return {
            "tokens_dropped": self.tokens_dropped,
            "tokens_clipped": self.tokens_clipped,
            "sequences_dropped": self.sequences_dropped,
            "sequences_touched": self.sequences_touched,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Stands where an effect would stand."""

    reason: str

    def to_dict(self) -> dict[str, float | str]:
        return {"left_out": self.reason}


def nothing(tokens: UnmaskedTokens) -> BoolArray:
    return np.zeros(tokens.diff.size, dtype=np.bool_)


def effect(tokens: UnmaskedTokens, fates: TokenFates) -> PresetEffect | LeftOut:
    if not tokens.diff.size:
        return LeftOut("no unmasked token")
    held = tokens.length > 0
    clipped = fates.clipped & ~fates.dropped
    whole = ~tokens.any_in_sequence(~fates.dropped)
    touched = tokens.any_in_sequence(fates.dropped | fates.clipped)
    return PresetEffect(
        tokens_dropped=np.count_nonzero(fates.dropped) / fates.dropped.size,
        tokens_clipped=np.count_nonzero(clipped) / clipped.size,
        sequences_dropped=float(whole[held].mean()),
        sequences_touched=float(touched[held].mean()),
    )


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


# NeMo-RL's reference configurations; the error threshold is its documentation's example.
NEMO_ICEPOP = (0.5, 5.0)
NEMO_GEOMETRIC = (0.999, 1.002)
NEMO_SEQUENCE_ERROR = 2.0
# slime's mis.yaml and its geometric level.
SLIME_MASK = (0.5, 2.0)
SLIME_GEOMETRIC = (0.9999, 1.0001)
# TRL's documented example of off_policy_mask_threshold; it is off by default.
OPSM_DELTA = 0.5


def framework_fates(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    """Presets that need nothing but the two sides."""
    return (
        _trl(tokens) | _slime(tokens) | _skyrl(tokens) | _openrlhf(tokens) | _token_bounds(tokens)
    )


def advantage_fates(tokens: UnmaskedTokens, advantages: FloatArray) -> dict[str, TokenFates]:
    """Presets that need advantages [unmasked]. OPSM uses the mean over a sequence's tokens."""
    # TRL counts a token that the engine could not score as no evidence.
    distance = tokens.sequence_mean(np.nan_to_num(-tokens.diff, nan=0.0))
    stale = (tokens.sequence_mean(advantages) < 0) & (distance > OPSM_DELTA)
    return {
        "trl.off_policy_mask": _drops(tokens, _spread(tokens, stale)),
        "prime_rl.dppo_mask": _drops(tokens, prime_rl.dppo_masked(tokens, advantages)),
    }


ADVANTAGE_PRESETS = ("trl.off_policy_mask", "prime_rl.dppo_mask")


def _trl(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    fates = {}
    for mode in small_frameworks.TRL_MODES:
        ratios = small_frameworks.raw_ratios(tokens, mode)
        over = (
            tokens.per_token(ratios) if mode.startswith("sequence") else ratios
        ) > small_frameworks.TRL_CLIP_MAX
        make = _clips if mode.endswith("truncate") else _drops
        fates[f"trl.{mode}"] = make(tokens, over)
    return fates


def _slime(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    token = tokens.bounded_ratio(slime.SAFETY_BOUND)
    veto = tokens.any_in_sequence(tokens.diff < np.log(slime.VETO))
    geometric = skyrl.bounded_ratio(tokens.sequence_mean(tokens.diff))
    tis = (tokens.ratio > slime.TIS_CLIP) | (tokens.ratio < slime.TIS_CLIP_LOW)
    return {
        "slime.tis": _clips(tokens, tis),
        "slime.mis_truncate": _clips(tokens, token > slime.MIS_UPPER),
        "slime.mis_mask": _drops(tokens, _not_within(token, SLIME_MASK)),
        "slime.mis_veto": _drops(tokens, _spread(tokens, veto)),
        "slime.mis_geometric_mask": _drops(
            tokens, _spread(tokens, _not_within(geometric, SLIME_GEOMETRIC))
        ),
    }


def _skyrl(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    token = tokens.bounded_ratio(skyrl.SAFETY_BOUND)
    product = skyrl.bounded_ratio(tokens.sequence_sum(tokens.diff))
    geometric = skyrl.bounded_ratio(tokens.sequence_mean(tokens.diff))
    outlier = tokens.any_in_sequence(skyrl.outside(token, skyrl.OUTLIER_BOUNDS))
    masked_sequences = {
        "outlier_mask": outlier,
        "geometric_mask": skyrl.outside(geometric, skyrl.GEOMETRIC_BOUNDS),
        "product_mask": skyrl.outside(product, skyrl.PRODUCT_BOUNDS),
    }
    return {
        "skyrl.tis_token": _clips(tokens, token > skyrl.TOKEN_CLIP),
        "skyrl.tis_sequence": _clips(tokens, _spread(tokens, product > skyrl.SEQUENCE_CLIP)),
        "skyrl.token_mask": _drops(tokens, skyrl.outside(token, skyrl.TOKEN_BOUNDS)),
    } | {
        f"skyrl.{name}": _drops(tokens, _spread(tokens, masked))
        for name, masked in masked_sequences.items()
    }


def _openrlhf(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    """Gates in mode mask. Of the divergences only the upper bound is meaningful.

    OpenRLHF holds every statistic against both bounds of one threshold: with the default [0.5, 5]
    a divergence gate drops everything below 0.5, that is, nearly every healthy token. It is shown
    as it would act.
    """
    levels: tuple[openrlhf.Level, ...] = ("token", "seq")
    return {
        f"openrlhf.{level}_{gating}": _drops(
            tokens,
            _not_within(openrlhf.gate_statistic(tokens, gating, level), openrlhf.THRESHOLD),
        )
        for gating in openrlhf.GATINGS
        for level in levels
    }


def _token_bounds(tokens: UnmaskedTokens) -> dict[str, TokenFates]:
    geometric = np.exp(tokens.sequence_mean(tokens.diff))
    errors = tokens.sequence_mean(np.exp(np.abs(tokens.diff)))
    beyond_areal = np.isfinite(tokens.diff) & (tokens.ratio > small_frameworks.AREAL_UPPER)
    return {
        "nemo_rl.icepop": _drops(tokens, _not_within(tokens.ratio, NEMO_ICEPOP)),
        "nemo_rl.seq_mask_tis": _drops(
            tokens, _spread(tokens, _not_within(geometric, NEMO_GEOMETRIC))
        ),
        "nemo_rl.seq_logprob_error": _drops(tokens, _spread(tokens, errors > NEMO_SEQUENCE_ERROR)),
        "areal.token_ratio_mask": _drops(tokens, beyond_areal),
        "open_instruct.rho_clamp": _clips(
            tokens, tokens.bounded_ratio(OPEN_INSTRUCT_CLAMP) > OPEN_INSTRUCT_RHO_UPPER
        ),
    }


def _drops(tokens: UnmaskedTokens, dropped: BoolArray) -> TokenFates:
    return TokenFates(dropped, nothing(tokens))


def _clips(tokens: UnmaskedTokens, clipped: BoolArray) -> TokenFates:
    return TokenFates(nothing(tokens), clipped)


def _spread(tokens: UnmaskedTokens, sequences: BoolArray) -> BoolArray:
    """[unmasked] from [sequences given]."""
    return np.repeat(sequences, tokens.length)


def _not_within(values: FloatArray, bounds: tuple[float, float]) -> BoolArray:
    """Unlike `outside`, True for NaN: a mask that keeps what lies within drops what cannot."""
    low, high = bounds
    return ~((values >= low) & (values <= high))
