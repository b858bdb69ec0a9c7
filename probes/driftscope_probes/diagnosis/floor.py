"""Floor: how far apart two sides are by rounding alone.

In: a dtype pair, and the model's family where it is known. Out: a Floor, from a calibration of this
very model or from the priors below. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Standard deviation of the noise on the logits, in nats: sqrt(sum Δ² / sum (1 - p)²), for a dense
#: decoder. Published std(Δ) per token (Qwen2.5 0.5B to 7B, batch 1 against batch 8): 0.046 to 0.060
#: in bf16, 0.0056 to 0.0085 in fp16, 0.8e-5 to 1.2e-5 in fp32; divided by the root mean square of
#: 1 - p over sampled text, about 0.75 there.
PRIOR_SIGMA: Mapping[str, float] = {"bf16": 0.07, "fp16": 0.009, "fp32": 1.6e-5}
#: Steps of the grid: e4m3 has 2^-4, bf16 2^-8; the error of quantised weights scales with it.
QUANTISED_SIGMA: Mapping[str, float] = {"fp8": 0.35, "int8": 0.2, "int4": 0.8}
#: Tokens that take another expert move further: 2.4 times the KL of dense models (R3, 2510.11370).
MIXTURE_OF_EXPERTS = 1.55
UNKNOWN_DTYPE = "bf16"  # what most trainers run; says so in `assumed`
AT_FLOOR_UP_TO = 2.0
ABOVE_FLOOR_UP_TO = 5.0


@dataclass(frozen=True, slots=True)
class Floor:
    """What rounding explains. `sigma`: nats on the logits, see PRIOR_SIGMA."""

    sigma: float
    source: Literal["calibrated", "prior"]
    rollout_dtype: str
    trainer_dtype: str
    model: str | None = None
    assumed: tuple[str, ...] = ()  # dtypes that nobody stated

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma": self.sigma,
            "source": self.source,
            "rollout_dtype": self.rollout_dtype,
            "trainer_dtype": self.trainer_dtype,
            "model": self.model,
            "assumed": list(self.assumed),
        }


_SPELLINGS: Mapping[str, str] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "f32": "fp32",
    "f16": "fp16",
    "fp8_e4m3": "fp8",
    "float8_e4m3fn": "fp8",
    "e4m3": "fp8",
    "w8a8": "int8",
    "awq": "int4",
    "gptq": "int4",
    "mxfp8": "fp8",
}


def short_dtype(name: str | None) -> str | None:
    """`torch.bfloat16`, `bfloat16`, `BF16` and `bf16+fp32-head` are all bf16; None stays."""
    if not name:
        return None
    word = name.lower().removeprefix("torch.").split("+")[0].strip()
    return _SPELLINGS.get(word, word)


def prior_floor(
    rollout_dtype: str | None, trainer_dtype: str | None, *, moe: bool = False
) -> Floor:
    """The coarser of the two dtypes carries the floor: a one-sided upgrade buys about 5 %."""
    rollout, trainer = short_dtype(rollout_dtype), short_dtype(trainer_dtype)
    known = {**PRIOR_SIGMA, **QUANTISED_SIGMA}
    assumed = tuple(
        side
        for side, dtype in (("rollout_dtype", rollout), ("trainer_dtype", trainer))
        if dtype not in known
    )
    rollout = rollout if rollout in known else UNKNOWN_DTYPE
    trainer = trainer if trainer in known else UNKNOWN_DTYPE
    sigma = max(
        PRIOR_SIGMA.get(rollout, PRIOR_SIGMA["bf16"]), PRIOR_SIGMA.get(trainer, PRIOR_SIGMA["bf16"])
    )
    return Floor(
        sigma * (MIXTURE_OF_EXPERTS if moe else 1.0), "prior", rollout, trainer, assumed=assumed
    )
