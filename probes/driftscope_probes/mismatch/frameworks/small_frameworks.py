"""TRL 1.16: sampling/* of the GRPO trainer with a vLLM engine, as TRL defines them.

In: UnmaskedTokens. Out: AliasValues. Source: trl/trainer/grpo_trainer.py.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from driftscope_probes.mismatch.aliases.alias_values import AliasValues, alias_values
from driftscope_probes.mismatch.aliases.unmasked_tokens import UnmaskedTokens
from driftscope_probes.mismatch.arrays import FloatArray

Mode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
MODES: tuple[Mode, ...] = get_args(Mode)

# GRPOConfig: vllm_importance_sampling_mode, …_clip_max; …_clip_min is None.
DEFAULT_MODE: Mode = "sequence_mask"
CLIP_MAX = 3.0


def trl(tokens: UnmaskedTokens, mode: Mode = DEFAULT_MODE) -> AliasValues:
    """Flaws, kept: a token with a NaN difference is left out of the difference but enters the
    ratios as ρ = 1, and an infinite one as the largest float; ratios are logged after clipping or
    masking, so their tail is invisible (maximum ≤ 3, and masked ones count as 0 in the minimum and
    the mean); at sequence level a sequence without tokens counts as ρ = 1; without tokens the
    answer is 0, not undefined. TRL also averages the means of its ranks without weights; here
    there is one rank.
    """
    known = np.abs(tokens.diff[~np.isnan(tokens.diff)])
    ratios = limited_ratios(tokens, mode)
    difference = "sampling/sampling_logp_difference/"
    importance = "sampling/importance_sampling_ratio/"
    return alias_values(
        {
            difference + "mean": float(known.mean()) if known.size else 0.0,
            difference + "max": float(known.max()) if known.size else 0.0,
            importance + "min": float(ratios.min()) if ratios.size else 0.0,
            importance + "mean": float(ratios.mean()) if ratios.size else 0.0,
            importance + "max": float(ratios.max()) if ratios.size else 0.0,
        }
    )


def raw_ratios(tokens: UnmaskedTokens, mode: Mode) -> FloatArray:
    """[unmasked] or [sequences given] importance ratios before clipping or masking."""
    log_ratios = np.nan_to_num(tokens.diff, nan=0.0)
    if mode.startswith("sequence"):
        log_ratios = tokens.sequence_sum(log_ratios)
    ratios: FloatArray = np.exp(log_ratios)
    return ratios


def limited_ratios(tokens: UnmaskedTokens, mode: Mode) -> FloatArray:
    """The ratios the loss is multiplied with."""
    ratios = raw_ratios(tokens, mode)
    if mode.endswith("truncate"):
        return np.minimum(ratios, CLIP_MAX)
    return np.where(ratios > CLIP_MAX, 0.0, ratios)
