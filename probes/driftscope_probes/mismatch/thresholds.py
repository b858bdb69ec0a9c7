"""Published thresholds as priors: which numbers of a comparison count as unhealthy.

In: Comparison.to_dict() and the dtypes of both sides. Out: CrossedThreshold per number beyond its
own. Priors, not verdicts: a floor measured on the model itself says more (docs/limits.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from driftscope_probes.mismatch.number import OVERFLOW
from driftscope_probes.numbers import NUMBERS

Direction = Literal["above", "below"]
#: From coarse to fine; the coarser side decides. Measured: a pair with one BF16 side keeps 0.8 to
#: 0.97 of the mismatch of BF16 on both (Qwen3.5-0.8B, vLLM against HF: 0.0133 against 0.0137).
#: "unknown" is also FP8, INT8 and any other: it gets the loosest published threshold.
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
class Threshold:
    metric: str  # name in Comparison.to_dict()
    direction: Direction
    values: Mapping[Precision, float]
    source: str


@dataclass(frozen=True, slots=True)
class CrossedThreshold:
    metric: str
    value: float | None  # None: it overflowed, or is not a finite number
    limit: float  # the threshold; the public name in JSON
    direction: Direction
    source: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _scaled(
    metric: str,
    direction: Direction,
    bf16: float,
    source: str,
    *,
    power: int = 1,
    unknown: float | None = None,
) -> Threshold:
    """The distance from the ideal shrinks with the power of the dtype's quotient."""
    ideal = NUMBERS[metric].ideal
    values: dict[Precision, float] = {
        "unknown": bf16 if unknown is None else unknown,
        "bf16": bf16,
        "fp16": ideal + (bf16 - ideal) / FP16_QUOTIENT**power,
        "fp32": ideal + (bf16 - ideal) / FP32_QUOTIENT**power,
    }
    return Threshold(metric, direction, values, source + _SCALED)


def _same(metric: str, direction: Direction, value: float, source: str) -> Threshold:
    return Threshold(metric, direction, dict.fromkeys(COARSE_TO_FINE, value), source)


# fmt: off
THRESHOLDS: Final[tuple[Threshold, ...]] = (
    _scaled("prob_abs_diff_mean", "above", 0.01,
            "verl FAQ: below 0.005 is normal, above 0.01 a precision problem"),
    _scaled("abs_diff_mean", "above", 0.1, "slime and vime: CI fails above 0.1 nats"),
    _scaled("token_mult_prob_error", "above", 1.05, "NeMo-RL: investigate above 1.05"),
    # Not NeMo-RL's 1e-3: a healthy dense BF16 model has 0.6e-3 to 1.8e-3.
    _scaled("kl_k3", "above", 0.015,
            "prime-rl: a model is merged below 0.015; unknown dtypes: verl warns above 0.1",
            power=2, unknown=0.1),
    _same("kl_k1", "above", 0.1, "verl rollout correction: warns at |KL| above 0.1"),
    _same("kl_k1", "below", -0.1, "verl rollout correction: warns at |KL| above 0.1"),
    _scaled("prob_pearson", "below", 0.99,
            "verl: 0.99 and more is healthy (0.998 measured; 0.87 was FP8 drift)", power=2),
    Threshold("ess_ratio_token", "below", {"unknown": 0.3, "bf16": 0.9, "fp16": 0.9, "fp32": 0.9},
              "martingale: 0.9 and more is healthy; verl and martingale warn below 0.3"),
    _same("chi2_token", "above", 1.0, "verl rollout correction: warns above 1"),
    _same("ratio_mean", "above", 2.0, "verl rollout correction: warns outside 0.5 to 2"),
    _same("ratio_mean", "below", 0.5, "verl rollout correction: warns outside 0.5 to 2"),
    _same("ratio_std", "above", 1.0, "verl rollout correction: warns above 1"),
    _same("abs_diff_share_above_ln2", "above", 0.1,
          "R3 (arXiv 2510.11370): F(2) above 0.1 precedes collapse"),
    _same("confident_disagreements", "above", 0.0, "martingale: one such token is an error"),
    _same("nonfinite_tokens", "above", 0.0,
          "a log-probability of a sampled token is a finite number"),
)
# fmt: on


def crossed_thresholds(
    comparison: Mapping[str, Any], *, rollout_dtype: str | None, trainer_dtype: str | None
) -> tuple[CrossedThreshold, ...]:
    """In the order of THRESHOLDS. A number that is missing or undefined crosses nothing; one that
    overflowed crosses every threshold on it."""
    precision = pair_precision(rollout_dtype, trainer_dtype)
    crossed = []
    for one in THRESHOLDS:
        if one.metric not in comparison:
            continue
        value, limit = comparison[one.metric], one.values[precision]
        if _not_finite(comparison, one.metric):
            value = None
        elif value is None or not (value > limit if one.direction == "above" else value < limit):
            continue
        crossed.append(CrossedThreshold(one.metric, value, limit, one.direction, one.source))
    return tuple(crossed)


def pair_precision(rollout_dtype: str | None, trainer_dtype: str | None) -> Precision:
    return min(_precision(rollout_dtype), _precision(trainer_dtype), key=COARSE_TO_FINE.index)


def unknown_dtypes_note(metadata: Mapping[str, str]) -> str | None:
    """What follows for the limits where a step does not say in which dtypes both sides ran."""
    unknown = [name for name in ("rollout_dtype", "trainer_dtype") if not metadata.get(name)]
    if not unknown:
        return None
    return (
        f"The metadata of this step name no {' and no '.join(unknown)}: unless its run does, only "
        "the loosest published limits apply, those of any dtype."
    )


def _precision(dtype: str | None) -> Precision:
    """Autocast runs its products in its dtype, whatever the weights and the head are in."""
    word = (dtype or "").strip().lower().removeprefix("torch.").removeprefix("autocast-")
    return _SPELLINGS.get(word.split("+")[0].strip(), "unknown")


def _not_finite(comparison: Mapping[str, Any], metric: str) -> bool:
    value = comparison[metric]
    if value is None:
        return bool(comparison.get("undefined", {}).get(metric) == OVERFLOW.reason)
    return not math.isfinite(value)
