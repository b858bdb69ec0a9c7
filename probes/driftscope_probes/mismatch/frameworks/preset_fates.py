"""What each framework's rejection and truncation presets do to every token: keep, drop or clip."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from driftscope_probes.mismatch.frameworks import openrlhf, prime_rl, skyrl, slime, small_frameworks
from driftscope_probes.mismatch.frameworks.token_read import VETO
from driftscope_probes.mismatch.frameworks.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.frameworks.verl import VerlCorrection, sequence_weights
from driftscope_probes.mismatch.frameworks.verl_rejection import VerlRejection, kept_sequences
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray
from driftscope_probes.mismatch.terms import MIS_UPPER, RHO_UPPER


@dataclass(frozen=True, slots=True)
class SequenceFates:
    """Both [sequences given]: how many tokens of each sequence meet that fate."""

    dropped: IntArray
    clipped: IntArray  # and not dropped


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


def in_sequences(tokens: UnmaskedTokens, flags: BoolArray) -> IntArray:
    """Every token of the flagged sequences [sequences given]."""
    return np.where(flags, tokens.length, 0)


def drops(counts: IntArray) -> SequenceFates:
    return SequenceFates(counts, np.zeros_like(counts))


def clips(counts: IntArray) -> SequenceFates:
    return SequenceFates(np.zeros_like(counts), counts)


def effect(tokens: UnmaskedTokens, fates: SequenceFates) -> PresetEffect | LeftOut:
    if not tokens.size:
        return LeftOut("no unmasked token")
    held = tokens.length > 0
    return PresetEffect(
        tokens_dropped=tokens.fraction(fates.dropped),
        tokens_clipped=tokens.fraction(fates.clipped),
        sequences_dropped=float((fates.dropped == tokens.length)[held].mean()),
        sequences_touched=float((fates.dropped + fates.clipped > 0)[held].mean()),
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


def verl_fates(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    """PPO's own clip of the loss is no part of a preset and is not counted.

    The bypass presets compare the rollout with the policy being updated, which is the trainer's
    at the first minibatch of a step: that is what is shown.
    """
    rejections = {r for correction in VERL_PRESETS.values() for r in correction.rejections}
    kept = {rejection: kept_sequences(tokens, rejection) for rejection in rejections}
    return {name: _fates(tokens, correction, kept) for name, correction in VERL_PRESETS.items()}


def _fates(
    tokens: UnmaskedTokens, correction: VerlCorrection, kept: dict[VerlRejection, BoolArray]
) -> SequenceFates:
    dropped, clipped = np.zeros_like(tokens.length), np.zeros_like(tokens.length)
    if correction.rollout_is == "sequence":
        clipped = in_sequences(tokens, sequence_weights(tokens) > correction.upper)
    elif correction.rollout_is == "token" and correction.lower is None:
        clipped = tokens.above("ratio", correction.upper)
    elif correction.lower is not None:
        dropped = tokens.not_within("ratio", (correction.lower, correction.upper))
    for rejection in correction.rejections:
        dropped = np.where(kept[rejection], dropped, tokens.length)
        clipped = np.where(kept[rejection], clipped, 0)
    return SequenceFates(dropped, clipped)


# NeMo-RL's reference configurations; the error threshold is its documentation's example.
NEMO_ICEPOP = (0.5, 5.0)
NEMO_GEOMETRIC = (0.999, 1.002)
NEMO_SEQUENCE_ERROR = 2.0
# slime's mis.yaml and its geometric level.
SLIME_MASK = (0.5, 2.0)
SLIME_GEOMETRIC = (0.9999, 1.0001)
# TRL's documented example of off_policy_mask_threshold; it is off by default.
OPSM_DELTA = 0.5


def framework_fates(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    """Presets that need nothing but the two sides."""
    return (
        _trl(tokens) | _slime(tokens) | _skyrl(tokens) | _openrlhf(tokens) | _token_bounds(tokens)
    )


def advantage_fates(tokens: UnmaskedTokens, advantages: FloatArray) -> dict[str, SequenceFates]:
    """Presets that need advantages [unmasked]. OPSM uses the mean over a sequence's tokens."""
    # TRL counts a token that the engine could not score as no evidence.
    distance = tokens.sequence_mean(np.nan_to_num(-tokens.diff, nan=0.0))
    stale = (tokens.sequence_mean(advantages) < 0) & (distance > OPSM_DELTA)
    masked = prime_rl.dppo_masked(tokens, advantages)
    return {
        "trl.off_policy_mask": drops(in_sequences(tokens, stale)),
        "prime_rl.dppo_mask": drops(tokens.count(masked)),
    }


ADVANTAGE_PRESETS = ("trl.off_policy_mask", "prime_rl.dppo_mask")


def _trl(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    over_token = tokens.above("ratio", small_frameworks.TRL_CLIP_MAX)
    over_sequence = in_sequences(
        tokens, small_frameworks.raw_ratios(tokens, "sequence_mask") > small_frameworks.TRL_CLIP_MAX
    )
    return {
        "trl.token_truncate": clips(over_token),
        "trl.token_mask": drops(over_token),
        "trl.sequence_truncate": clips(over_sequence),
        "trl.sequence_mask": drops(over_sequence),
    }


def _slime(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    vetoed = tokens.below("diff", VETO) > 0
    geometric = skyrl.bounded_ratio(tokens.sequence_mean("diff"))
    return {
        "slime.tis": clips(tokens.above("ratio", slime.TIS_CLIP)),
        "slime.mis_truncate": clips(tokens.above("ratio", MIS_UPPER)),
        "slime.mis_mask": drops(tokens.not_within("ratio", SLIME_MASK)),
        "slime.mis_veto": drops(in_sequences(tokens, vetoed)),
        "slime.mis_geometric_mask": drops(
            in_sequences(tokens, _not_within(geometric, SLIME_GEOMETRIC))
        ),
    }


def _skyrl(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    product = skyrl.bounded_ratio(tokens.sequence_sum("diff"))
    geometric = skyrl.bounded_ratio(tokens.sequence_mean("diff"))
    masked_sequences = {
        "outlier_mask": tokens.outside("ratio", skyrl.OUTLIER_BOUNDS) > 0,
        "geometric_mask": skyrl.outside(geometric, skyrl.GEOMETRIC_BOUNDS),
        "product_mask": skyrl.outside(product, skyrl.PRODUCT_BOUNDS),
    }
    return {
        "skyrl.tis_token": clips(tokens.above("ratio", skyrl.TOKEN_CLIP)),
        "skyrl.tis_sequence": clips(in_sequences(tokens, product > skyrl.SEQUENCE_CLIP)),
        "skyrl.token_mask": drops(tokens.outside("ratio", skyrl.TOKEN_BOUNDS)),
    } | {
        f"skyrl.{name}": drops(in_sequences(tokens, masked))
        for name, masked in masked_sequences.items()
    }


def _openrlhf(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    """Gates in mode mask. Of the divergences only the upper bound is meaningful.

    OpenRLHF holds every statistic against both bounds of one threshold: with the default [0.5, 5]
    a divergence gate drops everything below 0.5, that is, nearly every healthy token. It is shown
    as it would act.
    """
    fates = {}
    for gating in openrlhf.GATINGS:
        of_sequences = openrlhf.sequence_statistic(tokens, gating)
        fates[f"openrlhf.token_{gating}"] = drops(tokens.not_within(gating, openrlhf.THRESHOLD))
        fates[f"openrlhf.seq_{gating}"] = drops(
            in_sequences(tokens, _not_within(of_sequences, openrlhf.THRESHOLD))
        )
    return fates


def _token_bounds(tokens: UnmaskedTokens) -> dict[str, SequenceFates]:
    geometric = np.exp(tokens.sequence_mean("diff"))
    errors = tokens.sequence_mean("mult_error")
    beyond_areal = tokens.above("ratio", small_frameworks.AREAL_UPPER)
    if not tokens.finite_diff:
        beyond_areal = tokens.count(
            np.isfinite(tokens.diff) & (tokens.ratio > small_frameworks.AREAL_UPPER)
        )
    return {
        "nemo_rl.icepop": drops(tokens.not_within("ratio", NEMO_ICEPOP)),
        "nemo_rl.seq_mask_tis": drops(in_sequences(tokens, _not_within(geometric, NEMO_GEOMETRIC))),
        "nemo_rl.seq_logprob_error": drops(in_sequences(tokens, errors > NEMO_SEQUENCE_ERROR)),
        "areal.token_ratio_mask": drops(beyond_areal),
        "open_instruct.rho_clamp": clips(tokens.above("ratio", RHO_UPPER)),
    }


def _not_within(values: FloatArray, bounds: tuple[float, float]) -> BoolArray:
    """Unlike skyrl.outside(), True for NaN: what cannot lie within is dropped."""
    low, high = bounds
    return ~((values >= low) & (values <= high))
