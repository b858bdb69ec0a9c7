"""The rounding point at which attention kernels differ, as an option, and what two engines choose.

In: nothing. Out: AttentionOptions and the choices VLLM_ATTENTION and TRANSFORMERS_ATTENTION.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    # exp(score − maximum) as it multiplies the values: the float32 number, or that rounded to the
    # dtype of the values. The sum that divides the result takes the float32 number either way.
    probabilities: Literal["float32", "rounded"] = "float32"


# vLLM 0.32 on CPU: scores, softmax and P·V in float32, one rounding at the end.
VLLM_ATTENTION = AttentionOptions()
# torch's scaled_dot_product_attention on CPU, which transformers 5.19 calls: P·V is a product of
# matrices in the dtype (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp, conditional_convert).
TRANSFORMERS_ATTENTION = AttentionOptions(probabilities="rounded")
