"""The ways to run the loop: dtype of both sides, whose kernels, and what corrects the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["bfloat16", "float16"]
#: How TRL caps the importance ratio of a token: Yao et al. 2025, "Your efficient RL framework
#: secretly brings you off-policy RL training", use 2.
TRUNCATED_AT = 2.0


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    dtype: Dtype
    exact: bool  # our kernels on both sides; otherwise vLLM's own and torch's own
    corrected: bool = False  # truncated importance sampling


MODES = {
    mode.name: mode
    for mode in (
        Mode("bf16", "bfloat16", exact=False),
        Mode("fp16", "float16", exact=False),
        Mode("bf16+tis", "bfloat16", exact=False, corrected=True),
        Mode("exact", "bfloat16", exact=True),
        Mode("exact-fp16", "float16", exact=True),
    )
}
