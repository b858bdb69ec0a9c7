"""Published limits as priors: which numbers of a comparison lie where nobody calls it healthy.

In: Comparison.to_dict() and the dtypes of both sides. Out: CrossedLimit per number beyond its
limit. Priors, not verdicts: a floor measured on the model itself says more (docs/limits.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from driftscope_probes.mismatch.number import OVERFLOW

Direction = Literal["above", "below"]
#: From coarse to fine; the coarser side decides. Measured: a pair with one BF16 side keeps 0.8 to
#: 0.97 of the mismatch of BF16 on both (Qwen3.5-0.8B, vLLM against HF: 0.0133 against 0.0137).
#: "unknown" is also FP8, INT8 and whatever else: it gets the loosest published limit.
Precision = Literal["unknown", "bf16", "fp16", "fp32"]
COARSE_TO_FINE: Final[tuple[Precision, ...]] = ("unknown", "bf16", "fp16", "fp32")
_SPELLINGS: Final[Mapping[str, Precision]] = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp32": "fp32",
    "float32": "fp32",
    "float": "fp32",
}

#: Differences against BF16. FP16: three more mantissa bits, 2**3 (arXiv 2510.26788; measured 6.4 to
#: 8.2). FP32: the smallest of the measured quotients 3,500 to 6,000 (batch-logprob-gap), not 2**16:
#: accumulation order is left, storage rounding is not. A KL goes with the square.
FP16_QUOTIENT: Final = 8.0
FP32_QUOTIENT: Final = 3_500.0
_SCALED: Final = "; FP16 and FP32: BF16's, divided as docs/limits.md says"


@dataclass(frozen=True, slots=True)
class Limit:
    metric: str  # name in Comparison.to_dict()
    direction: Direction
    values: Mapping[Precision, float]
    source: str


@dataclass(frozen=True, slots=True)
class CrossedLimit:
    metric: str
    value: float | None  # None: it overflowed, or is not a finite number
    limit: float
    direction: Direction
    source: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _same(value: float) -> Mapping[Precision, float]:
    return dict.fromkeys(COARSE_TO_FINE, value)


def _falling(unknown: float, bf16: float, *, ideal: float, power: int) -> dict[Precision, float]:
    """The distance from `ideal` shrinks with the power of the dtype's quotient."""
    return {
        "unknown": unknown,
        "bf16": bf16,
        "fp16": ideal + (bf16 - ideal) / FP16_QUOTIENT**power,
        "fp32": ideal + (bf16 - ideal) / FP32_QUOTIENT**power,
    }


LIMITS: Final[tuple[Limit, ...]] = (
    Limit(
        "prob_abs_diff_mean",
        "above",
        _falling(0.01, 0.01, ideal=0.0, power=1),
        "verl FAQ: below 0.005 is normal, above 0.01 a precision problem" + _SCALED,
    ),
    Limit(
        "abs_diff_mean",
        "above",
        _falling(0.1, 0.1, ideal=0.0, power=1),
        "slime and vime: CI fails above 0.1 nats" + _SCALED,
    ),
    Limit(
        "token_mult_prob_error",
        "above",
        _falling(1.05, 1.05, ideal=1.0, power=1),
        "NeMo-RL: investigate above 1.05" + _SCALED,
    ),
    Limit(
        "kl_k3",
        "above",
        # Not NeMo-RL's 1e-3: a healthy dense BF16 model has 0.6e-3 to 1.8e-3.
        _falling(0.1, 0.015, ideal=0.0, power=2),
        "prime-rl: a model is merged below 0.015; unknown dtypes: verl warns above 0.1" + _SCALED,
    ),
    Limit("kl_k1", "above", _same(0.1), "verl rollout correction: warns at |KL| above 0.1"),
    Limit("kl_k1", "below", _same(-0.1), "verl rollout correction: warns at |KL| above 0.1"),
    Limit(
        "prob_pearson",
        "below",
        _falling(0.99, 0.99, ideal=1.0, power=2),
        "verl: 0.99 and more is healthy (0.998 measured; 0.87 was FP8 drift)" + _SCALED,
    ),
    Limit(
        "ess_ratio_token",
        "below",
        {"unknown": 0.3, "bf16": 0.9, "fp16": 0.9, "fp32": 0.9},
        "martingale: 0.9 and more is healthy; verl and martingale warn below 0.3",
    ),
    Limit("chi2_token", "above", _same(1.0), "verl rollout correction: warns above 1"),
    Limit("ratio_mean", "above", _same(2.0), "verl rollout correction: warns outside 0.5 to 2"),
    Limit("ratio_mean", "below", _same(0.5), "verl rollout correction: warns outside 0.5 to 2"),
    Limit("ratio_std", "above", _same(1.0), "verl rollout correction: warns above 1"),
    Limit(
        "abs_diff_share_above_ln2",
        "above",
        _same(0.1),
        "R3 (arXiv 2510.11370): F(2) above 0.1 precedes collapse",
    ),
    Limit(
        "confident_disagreements",
        "above",
        _same(0.0),
        "martingale: one such token is an error",
    ),
    Limit(
        "nonfinite_tokens",
        "above",
        _same(0.0),
        "a log-probability of a sampled token is a finite number",
    ),
)


def crossed_limits(
    comparison: Mapping[str, Any], *, rollout_dtype: str | None, trainer_dtype: str | None
) -> tuple[CrossedLimit, ...]:
    """In the order of LIMITS. A number that is missing or undefined crosses nothing; one that
    overflowed crosses every limit on it."""
    precision = pair_precision(rollout_dtype, trainer_dtype)
    crossed = []
    for limit in LIMITS:
        if limit.metric not in comparison:
            continue
        value, bound = comparison[limit.metric], limit.values[precision]
        if _not_finite(comparison, limit.metric):
            value = None
        elif value is None or not (value > bound if limit.direction == "above" else value < bound):
            continue
        crossed.append(CrossedLimit(limit.metric, value, bound, limit.direction, limit.source))
    return tuple(crossed)


def pair_precision(rollout_dtype: str | None, trainer_dtype: str | None) -> Precision:
    return min(_precision(rollout_dtype), _precision(trainer_dtype), key=COARSE_TO_FINE.index)


def _precision(dtype: str | None) -> Precision:
    return _SPELLINGS.get((dtype or "").strip().lower().removeprefix("torch."), "unknown")


def _not_finite(comparison: Mapping[str, Any], metric: str) -> bool:
    value = comparison[metric]
    if value is None:
        return bool(comparison.get("undefined", {}).get(metric) == OVERFLOW.reason)
    return not math.isfinite(value)
