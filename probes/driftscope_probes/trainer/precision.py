"""Trainer precision modes by name: weights, autocast, head. Free of torch.

`bf16`, `fp16`, `fp32`: the whole model in that dtype. `autocast-bf16`, `autocast-fp16`: float32
master weights under torch.autocast. Any of them with `+fp32-head`: the language-model head is
computed in float32 (MiniMax-M1 section 3.2; TRL `cast_lm_head_to_fp32`).
"""

from __future__ import annotations

from dataclasses import dataclass

from driftscope_probes.dtypes import DTYPES, Dtype

HEAD_SUFFIX = "+fp32-head"
AUTOCAST_PREFIX = "autocast-"
BASE_MODES = (*DTYPES, "autocast-bf16", "autocast-fp16")


@dataclass(frozen=True, slots=True)
class TrainerMode:
    name: str
    weights: Dtype
    autocast: Dtype | None
    fp32_head: bool

    @property
    def compute(self) -> Dtype:
        """The dtype in which the matrix products run."""
        return self.autocast or self.weights


def parse_mode(name: str) -> TrainerMode:
    """Raise ValueError that lists what is accepted."""
    base, fp32_head = name, False
    if name.endswith(HEAD_SUFFIX):
        base, fp32_head = name.removesuffix(HEAD_SUFFIX), True
    if base not in BASE_MODES:
        raise ValueError(
            f"unknown trainer mode {name!r}; accepted: {', '.join(BASE_MODES)}, "
            f"each optionally with {HEAD_SUFFIX}"
        )
    if base.startswith(AUTOCAST_PREFIX):
        autocast: Dtype = "bf16" if base.endswith("bf16") else "fp16"
        return TrainerMode(name, "fp32", autocast, fp32_head)
    weights = next(dtype for dtype in DTYPES if dtype == base)
    return TrainerMode(name, weights, None, fp32_head)
