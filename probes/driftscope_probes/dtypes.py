"""Names of number formats as users write them. Free of torch."""

from __future__ import annotations

from typing import Literal, get_args

Dtype = Literal["bf16", "fp16", "fp32"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
#: The names torch, vLLM and transformers use.
TORCH_NAMES: dict[Dtype, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
