"""The other frameworks' masks and truncations at their own defaults.

In: UnmaskedTokens, with advantages where they are known. Out: TokenFates by preset.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.aliases import areal, openrlhf, prime_rl, skyrl, slime, trl
from driftscope_probes.mismatch.aliases.open_instruct import LOG_RATIO_CLAMP, RHO_UPPER
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.arrays import BoolArray, FloatArray
from driftscope_probes.mismatch.presets.effect import TokenFates, nothing

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
    for mode in trl.MODES:
        ratios = trl.raw_ratios(tokens, mode)
        over = (tokens.per_token(ratios) if mode.startswith("sequence") else ratios) > trl.CLIP_MAX
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
    beyond_areal = np.isfinite(tokens.diff) & (tokens.ratio > areal.UPPER)
    return {
        "nemo_rl.icepop": _drops(tokens, _not_within(tokens.ratio, NEMO_ICEPOP)),
        "nemo_rl.seq_mask_tis": _drops(
            tokens, _spread(tokens, _not_within(geometric, NEMO_GEOMETRIC))
        ),
        "nemo_rl.seq_logprob_error": _drops(tokens, _spread(tokens, errors > NEMO_SEQUENCE_ERROR)),
        "areal.token_ratio_mask": _drops(tokens, beyond_areal),
        "open_instruct.rho_clamp": _clips(
            tokens, tokens.bounded_ratio(LOG_RATIO_CLAMP) > RHO_UPPER
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
