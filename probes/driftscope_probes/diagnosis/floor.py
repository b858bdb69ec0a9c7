"""Floor: how far apart two sides are by rounding alone.

In: a dtype pair, and the model's family where it is known. Out: a Floor, from a calibration of this
very model or from the priors below. Free of torch.

The unit of a floor is sigma, the standard deviation of the noise on the logits that would move the
log-probabilities as far as they did, in nats: noise on all logits moves that of a token with
probability p by about 1 − p times its size, so sigma = sqrt(sum Δ² / sum (1 − p)²).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from driftscope_probes.tokens import Tokens

#: Sigma of a dense decoder (Llama, Qwen, Mistral). Published std(Δ) per token (Qwen2.5 0.5B to 7B,
#: batch 1 against batch 8): 0.046 to 0.060 in bf16, 0.0056 to 0.0085 in fp16, 0.8e-5 to 1.2e-5 in
#: fp32; divided by the root mean square of 1 − p over sampled text, assumed to be 0.75 (measured
#: here: 0.67 to 0.69 on SmolLM2).
PRIOR_SIGMA: Mapping[str, float] = {"bf16": 0.07, "fp16": 0.009, "fp32": 1.6e-5}
#: Steps of the grid: e4m3 has 2^-4, bf16 2^-8; the error of quantised weights scales with it.
QUANTISED_SIGMA: Mapping[str, float] = {"fp8": 0.35, "int8": 0.2, "int4": 0.8}
#: Tokens that take another expert move further: 2.4 times the KL of dense models (R3, 2510.11370),
#: and sigma goes with the square root of KL.
MIXTURE_OF_EXPERTS = 1.55
UNKNOWN_DTYPE = "bf16"  # what most trainers run; says so in `assumed`
AT_FLOOR_UP_TO = 2.0
ABOVE_FLOOR_UP_TO = 5.0


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures whose rounding error a dense decoder's figures do not describe."""

    name: str
    pattern: re.Pattern[str]  # found in the lower-case name of a model
    factor: float  # times PRIOR_SIGMA
    found: str  # what the factor rests on


#: In the order in which they are tried. A name says nothing for certain: the prior says what it
#: recognised, and a calibration goes before it.
FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "small NeoX",
        re.compile(r"pythia-(14|31|70|160)m"),
        24.0,
        "pythia-160m, batch 1 against 8: std(Δ) 1.25 in bf16, 0.154 in fp16, 3.5e-4 in fp32",
    ),
    Family(
        "NeoX",
        re.compile(r"pythia|neox|dolly-v2|stablelm-(base|tuned)"),
        # Geometric mean of pythia-160m (24) and pythia-410m (2: 36.7 % of the ratios outside 0.9
        # to 1.1, which a normal distribution has at std 0.11).
        7.0,
        "between pythia-410m and pythia-160m, whose std(Δ) are 0.11 and 1.25 in bf16",
    ),
    Family(
        "mixture of experts",
        re.compile(
            r"moe|mixtral|[-_.]a\d+(\.\d+)?[bm]\b|deepseek-(v[234]|r1(?!-distill))|gpt-oss"
            r"|kimi-k2|minimax|glm-4\.[567]"
        ),
        MIXTURE_OF_EXPERTS,
        "2.4 times the KL of dense models (Qwen3-30B-A3B against Qwen3-8B)",
    ),
)


@dataclass(frozen=True, slots=True)
class Floor:
    """What rounding explains. `sigma`: nats on the logits, see PRIOR_SIGMA."""

    sigma: float
    source: Literal["calibrated", "prior"]
    rollout_dtype: str
    trainer_dtype: str
    model: str | None = None
    assumed: tuple[str, ...] = ()  # dtypes that nobody stated
    basis: str = ""  # what sigma rests on, a sentence without its full stop
    interval: tuple[float, float] | None = None  # 95 % of a calibrated sigma, over sequences

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma": self.sigma,
            "source": self.source,
            "rollout_dtype": self.rollout_dtype,
            "trainer_dtype": self.trainer_dtype,
            "model": self.model,
            "assumed": list(self.assumed),
            "basis": self.basis,
            "interval": None if self.interval is None else list(self.interval),
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
    """`torch.bfloat16`, `BF16`, `autocast-bf16` and `bf16+fp32-head` are all bf16; None stays."""
    if not name:
        return None
    word = name.lower().removeprefix("torch.").removeprefix("autocast-").split("+")[0].strip()
    return _SPELLINGS.get(word, word)


def prior_floor(
    rollout_dtype: str | None,
    trainer_dtype: str | None,
    *,
    moe: bool = False,
    model: str | None = None,
) -> Floor:
    """The coarser of the two dtypes carries the floor: a one-sided upgrade buys about 5 %.

    `moe`: routes were pushed, so that the model is a mixture of experts whatever its name.
    """
    rollout, trainer = short_dtype(rollout_dtype), short_dtype(trainer_dtype)
    known = {**PRIOR_SIGMA, **QUANTISED_SIGMA}
    assumed = tuple(
        side
        for side, dtype in (("rollout_dtype", rollout), ("trainer_dtype", trainer))
        if dtype not in known
    )
    rollout = rollout if rollout in known else UNKNOWN_DTYPE
    trainer = trainer if trainer in known else UNKNOWN_DTYPE
    family = family_of(model)
    factor = 1.0 if family is None else family.factor
    if moe:
        factor = max(factor, MIXTURE_OF_EXPERTS)
    return Floor(
        max(known[rollout], known[trainer]) * factor,
        "prior",
        rollout,
        trainer,
        model,
        assumed,
        basis=_basis(family, moe=moe),
    )


def family_of(model: str | None) -> Family | None:
    """None: a dense decoder, as far as the name tells."""
    name = (model or "").lower()
    return next((family for family in FAMILIES if family.pattern.search(name)), None)


def _basis(family: Family | None, *, moe: bool) -> str:
    if family is not None:
        return f"published for {family.name} models: {family.found}"
    if moe:
        return f"published for mixtures of experts: {FAMILIES[-1].found}"
    return "published for dense decoders of 0.5B to 7B, batch 1 against batch 8"


def measured_sigma(tokens: Tokens) -> float | None:
    """sqrt(sum Δ² / sum (1 − p)²) over unmasked tokens that are finite on both sides, in nats.

    p = exp(rollout log-probability), 1 where that is above 0. None without such a token, or where
    all of them have p = 1: then no noise on the logits could have moved them.
    """
    rollout = tokens.rollout.astype(np.float64, copy=False)
    # -inf on both sides has no difference, and a square beyond float64 is no sigma.
    with np.errstate(invalid="ignore", over="ignore"):
        difference = tokens.trainer.astype(np.float64, copy=False) - rollout
        used = np.isfinite(difference)
        if tokens.mask is not None:
            used &= tokens.mask
        room = np.expm1(np.minimum(rollout[used], 0.0))  # p − 1 without cancellation
        total = float(np.sum(room * room))
        moved = difference[used]
        square = float(np.sum(moved * moved))
    return math.sqrt(square / total) if total > 0.0 and math.isfinite(square) else None
