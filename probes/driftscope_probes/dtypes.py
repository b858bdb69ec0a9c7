"""Number formats by name, and the trainer modes that are spelled with them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Dtype = Literal["bf16", "fp16", "fp32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
#: The names torch, vLLM and transformers use.
TORCH_NAMES: dict[Dtype, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


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
