"""slime and miles (2026-08): train_rollout_logprob_abs_diff, tis*, mis_*, as they define them.

In: UnmaskedTokens. Out: AliasValues. Source: slime/backends/megatron_utils/loss.py and
examples/train_infer_mismatch_helper/mis.py; miles for train_rollout_kl.
"""

from __future__ import annotations

import numpy as np

from driftscope_probes.mismatch.frameworks.token_read import VETO, Summed
from driftscope_probes.mismatch.frameworks.unmasked_tokens import (
    AliasValues,
    UnmaskedTokens,
    alias_values,
    mean,
)
from driftscope_probes.mismatch.number import FloatArray, IntArray
from driftscope_probes.mismatch.terms import MIS_UPPER, SAFETY_BOUND

# --tis-clip; --tis-clip-low is 0.
TIS_CLIP = 2.0


def slime(tokens: UnmaskedTokens) -> AliasValues:
    """mis_* at level token, mode truncate, as in mis.yaml.

    Every number is a mean over sequences of means over tokens, so a token of a short sequence
    weighs more: another number than abs_diff_mean. Flaws, kept: a sequence without tokens enters
    each of these means as 0, and a 0 is also what the log-perplexity of such a sequence becomes.
    mis_k3_kl is unclamped; the mis weights are clamped to ±20 nats first.
    """
    clipped = tokens.above("ratio", TIS_CLIP) + tokens.undefined("ratio")
    values = {
        "train/train_rollout_logprob_abs_diff": _over(tokens, "abs_diff"),
        "tis": _over(tokens, "ratio"),
        "tis_clipfrac": _counted(tokens, clipped),
        "tis_abs": _over(tokens, "abs_excess"),
    }
    return alias_values(values | _perplexity(tokens) | _weights(tokens))


def miles(tokens: UnmaskedTokens) -> AliasValues:
    """slime's names, and train_rollout_kl: k3 of each token clamped to ±10.

    Flaw, kept: clamping bounds the outliers that matter most, so a broken token reads as 10 nats.
    """
    return slime(tokens) | alias_values({"train/train_rollout_kl": _over(tokens, "clamped_k3")})


def _over(tokens: UnmaskedTokens, values: Summed | FloatArray) -> float:
    """sum_of_sample_mean over the number of given sequences."""
    return mean(tokens.sequence_mean(values))


def _counted(tokens: UnmaskedTokens, counts: IntArray) -> float:
    """As _over(), of flags."""
    return mean(counts / np.maximum(tokens.length, 1))


def _perplexity(tokens: UnmaskedTokens) -> dict[str, float]:
    trainer_mean = tokens.sequence_mean("trainer")
    rollout_mean = tokens.sequence_mean("rollout")
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
    catastrophic = tokens.below("diff", VETO)
    return {
        "mis_kl": 0.0 - _over(tokens, "diff"),
        "mis_k3_kl": _over(tokens, "k3"),
        "mis_mean_is_weight_before_clip": _over(tokens, weights),
        "mis_truncate_fraction": _counted(tokens, tokens.above("ratio", MIS_UPPER)),
        "mis_ratio_mean_after_mis": _over(tokens, "capped_ratio"),
        "mis_catastrophic_token_fraction": _counted(tokens, catastrophic),
        "mis_catastrophic_seq_fraction": mean(catastrophic > 0),
    }
