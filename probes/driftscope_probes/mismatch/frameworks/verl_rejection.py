"""verl's rejection sampling: which tokens an option keeps, and the rollout_rs_* metrics of it.

In: UnmaskedTokens and an option with its bounds. Out: a keep mask and metrics, as verl 0.9.1 has
them in verl/trainer/ppo/rollout_corr_helper.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from driftscope_probes.mismatch.frameworks.token_read import bounded_k3
from driftscope_probes.mismatch.frameworks.unmasked_tokens import UnmaskedTokens, mean, unbiased_std
from driftscope_probes.mismatch.number import BoolArray, FloatArray
from driftscope_probes.mismatch.terms import SAFETY_BOUND

OPTIONS = (
    *("token_k1", "token_k2", "token_k3"),
    *("seq_sum_k1", "seq_sum_k2", "seq_sum_k3"),
    *("seq_mean_k1", "seq_mean_k2", "seq_mean_k3"),
    *("seq_max_k2", "seq_max_k3"),
)


@dataclass(frozen=True, slots=True)
class VerlRejection:
    """One rollout_rs option. lower and upper bound a ratio for k1, upper bounds a divergence else.

    Flaw, kept: k1 is −Δ = log(p_rollout / p_trainer) but is held against the logs of bounds that
    are documented for p_trainer / p_rollout. "0.5_4" therefore keeps ρ in [0.25, 2]; only
    reciprocal bounds do what they say.
    """

    option: str
    upper: float
    lower: float | None = None  # k1 only; None: 1 / upper, as verl infers it

    def __post_init__(self) -> None:
        assert self.option in OPTIONS, self.option
        assert self.lower is None or self.option.endswith("k1"), self.option


@dataclass(frozen=True, slots=True)
class _Statistic:
    """What an option compares: one value per token, or per given sequence."""

    deciding: FloatArray  # [unmasked] or [sequences given]
    per_sequence: FloatArray  # [sequences given]
    of_sequences: bool
    low: float  # −inf where nothing is too low
    high: float

    @property
    def keep(self) -> BoolArray:
        """As deciding; NaN is dropped, as in verl."""
        return (self.deciding >= self.low) & (self.deciding <= self.high)


def kept_tokens(tokens: UnmaskedTokens, rejection: VerlRejection) -> BoolArray:
    """[unmasked] False where the option drops the token."""
    statistic = _statistic(tokens, rejection)
    return tokens.per_token(statistic.keep) if statistic.of_sequences else statistic.keep


def kept_sequences(tokens: UnmaskedTokens, rejection: VerlRejection) -> BoolArray:
    """[sequences given] of an option that decides by sequence."""
    statistic = _statistic(tokens, rejection)
    assert statistic.of_sequences, rejection.option
    return statistic.keep


def rejection_metrics(
    tokens: UnmaskedTokens, rejections: tuple[VerlRejection, ...]
) -> dict[str, float]:
    """rollout_rs_*: per option, then all of them chained with AND.

    Flaws, kept: `…_mean` of a sequence option weights each sequence by its length, unlike
    `…_seq_mean`; `…_std` is taken after clamping to the bounds, so it cannot show the outliers;
    `rollout_rs_seq_masked_fraction` divides by all rows, empty ones included, while
    `rollout_rs_<option>_seq_masked_fraction` divides by the rows that hold tokens.
    """
    metrics: dict[str, float] = {}
    keep_all = np.ones(tokens.diff.size, dtype=np.bool_)
    held = tokens.length > 0
    for rejection in rejections:
        statistic = _statistic(tokens, rejection)
        keep = kept_tokens(tokens, rejection)
        keep_all &= keep
        prefix = f"rollout_rs_{rejection.option}_"
        for name, value in _option_metrics(tokens, statistic).items():
            metrics[prefix + name] = value
        hit = tokens.count(~keep) > 0
        metrics[prefix + "masked_fraction"] = mean(~keep)
        metrics[prefix + "seq_masked_fraction"] = mean(hit[held])
    metrics["rollout_rs_masked_fraction"] = mean(~keep_all)
    metrics["rollout_rs_seq_masked_fraction"] = mean(tokens.count(~keep_all) > 0)
    return metrics


def _statistic(tokens: UnmaskedTokens, rejection: VerlRejection) -> _Statistic:
    level, kind = rejection.option.rsplit("_", 1)
    low, high = -math.inf, rejection.upper
    if kind == "k1":
        lower = 1.0 / rejection.upper if rejection.lower is None else rejection.lower
        low, high = math.log(lower), math.log(rejection.upper)
    if level == "token":
        values = _divergence(tokens, kind)
        return _Statistic(values, tokens.sequence_mean(values), False, low, high)
    if level == "seq_max":
        per_sequence = tokens.sequence_max(_divergence(tokens, kind))
    else:
        reduce = tokens.sequence_sum if level == "seq_sum" else tokens.sequence_mean
        # Where nothing is clamped, the sums are there already.
        clamps = not tokens.largest("abs_diff") <= SAFETY_BOUND
        if clamps or kind == "k2":
            per_sequence = reduce(_divergence(tokens, kind))
        else:
            per_sequence = -reduce("diff") if kind == "k1" else reduce("k3")
    return _Statistic(per_sequence, per_sequence, True, low, high)


def _divergence(tokens: UnmaskedTokens, kind: str) -> FloatArray:
    if kind == "k3":
        return bounded_k3(tokens.diff, tokens.k3, SAFETY_BOUND)
    safe = np.clip(tokens.diff, -SAFETY_BOUND, SAFETY_BOUND)
    divergence: FloatArray = -safe if kind == "k1" else 0.5 * safe**2
    return divergence


def _option_metrics(tokens: UnmaskedTokens, statistic: _Statistic) -> dict[str, float]:
    low, high = statistic.low, statistic.high
    sequences = statistic.per_sequence[tokens.length > 0]
    deciding, per_token = statistic.deciding, statistic.deciding
    if statistic.of_sequences:
        deciding, per_token = sequences, tokens.per_token(statistic.per_sequence)
    metrics = {
        "mean": mean(per_token),
        "max": float(deciding.max()),
        "min": float(deciding.min()),
        "fraction_high": mean(deciding > high),
        "fraction_low": mean(deciding < low),
        # Without a lower bound verl clamps at 0, which k2 and k3 never fall below.
        "std": population_std(np.clip(per_token, low, high)),
        "seq_mean": mean(sequences),
        "seq_std": unbiased_std(sequences) if sequences.size > 1 else 0.0,
        "seq_max": float(sequences.max()),
        "seq_min": float(sequences.min()),
        "seq_max_deviation": float(np.abs(sequences).max()),
        "seq_fraction_high": mean(sequences > high),
    }
    if math.isfinite(low):
        metrics["seq_fraction_low"] = mean(sequences < low)
    return metrics


def population_std(values: FloatArray) -> float:
    """Divides by n, as verl does for weights and statistics; 0 for a single value."""
    return float(values.std()) if values.size > 1 else 0.0
