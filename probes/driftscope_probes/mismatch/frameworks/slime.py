"""slime and miles (2026-08): train_rollout_logprob_abs_diff, tis*, mis_*, as they define them.

In: UnmaskedTokens. Out: AliasValues. Source: slime/backends/megatron_utils/loss.py and
examples/train_infer_mismatch_helper/mis.py; miles for train_rollout_kl.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
)
from driftscope_probes.mismatch.number import FloatArray

# --tis-clip and --tis-clip-low.
TIS_CLIP, TIS_CLIP_LOW = 2.0, 0.0
# mis.yaml: upper bound of the weights and the veto.
MIS_UPPER = 2.0
VETO = 1e-4
SAFETY_BOUND = 20.0
# miles clamps each token's k3 so that one outlier cannot decide the mean.
MILES_K3_CLAMP = 10.0


def slime(tokens: UnmaskedTokens) -> AliasValues:
    """mis_* at level token, mode truncate, as in mis.yaml.

    Every number is a mean over sequences of means over tokens, so a token of a short sequence
    weighs more: another number than abs_diff_mean. Flaws, kept: a sequence without tokens enters
    each of these means as 0, and a 0 is also what the log-perplexity of such a sequence becomes.
    mis_k3_kl is unclamped; the mis weights are clamped to ±20 nats first.
    """
    tis_weights = np.clip(tokens.ratio, TIS_CLIP_LOW, TIS_CLIP)
    values = {
        "train/train_rollout_logprob_abs_diff": _over(tokens, np.abs(tokens.diff)),
        "tis": _over(tokens, tokens.ratio),
        "tis_clipfrac": _over(tokens, (tis_weights != tokens.ratio).astype(np.float64)),
        "tis_abs": _over(tokens, np.abs(np.expm1(tokens.diff))),
    }
    return alias_values(values | _perplexity(tokens) | _weights(tokens))


def miles(tokens: UnmaskedTokens) -> AliasValues:
    """slime's names, and train_rollout_kl: k3 of each token clamped to ±10.

    Flaw, kept: clamping bounds the outliers that matter most, so a broken token reads as 10 nats.
    """
    clamped = np.clip(tokens.k3, -MILES_K3_CLAMP, MILES_K3_CLAMP)
    return slime(tokens) | alias_values({"train/train_rollout_kl": _over(tokens, clamped)})


def _over(tokens: UnmaskedTokens, values: FloatArray) -> float:
    """sum_of_sample_mean over the number of given sequences."""
    return mean(tokens.sequence_mean(values))


def _perplexity(tokens: UnmaskedTokens) -> dict[str, float]:
    trainer_mean = tokens.sequence_mean(tokens.trainer)
    rollout_mean = tokens.sequence_mean(tokens.rollout)
    log_ppl_diff = rollout_mean - trainer_mean
    held = (tokens.length > 0).astype(np.float64)  # the value is spread over the tokens: none, 0
    per_sequence = {
        "training_log_ppl": -trainer_mean,
        "training_ppl": np.exp(-trainer_mean) * held,
        "rollout_log_ppl": -rollout_mean,
        "rollout_ppl": np.exp(-rollout_mean) * held,
        "log_ppl_diff": log_ppl_diff,
        "log_ppl_abs_diff": np.abs(log_ppl_diff),
        "ppl_ratio": np.exp(log_ppl_diff) * held,
    }
    return {f"mis_{name}": mean(value) for name, value in per_sequence.items()}


def _weights(tokens: UnmaskedTokens) -> dict[str, float]:
    weights = tokens.bounded_ratio(SAFETY_BOUND)
    catastrophic = tokens.diff < np.log(VETO)
    return {
        "mis_kl": _over(tokens, -tokens.diff),
        "mis_k3_kl": _over(tokens, tokens.k3),
        "mis_mean_is_weight_before_clip": _over(tokens, weights),
        "mis_truncate_fraction": _over(tokens, (weights > MIS_UPPER).astype(np.float64)),
        "mis_ratio_mean_after_mis": _over(tokens, np.minimum(weights, MIS_UPPER)),
        "mis_catastrophic_token_fraction": _over(tokens, catastrophic.astype(np.float64)),
        "mis_catastrophic_seq_fraction": mean(tokens.any_in_sequence(catastrophic)),
    }
