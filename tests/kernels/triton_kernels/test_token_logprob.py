"""Log-probability of tokens, forward and backward: the bits of the reference, interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from driftscope_kernels.options import LogprobOptions
from driftscope_kernels.reference import token_logprob as reference
from driftscope_kernels.triton_kernels import token_logprob

INTERPRETED = True
VOCABULARY = 528  # two tiles
CASES = [(torch.bfloat16, "rounded", 3), (torch.float32, "float32", 0)]


@pytest.mark.parametrize(("dtype", "logits", "top_k"), CASES, ids=str)
def test_equals_the_reference(
    dtype: torch.dtype,
    logits: str,
    top_k: int,
    same_bits: Callable[..., None],
    numbers: Callable[..., Tensor],
) -> None:
    hidden = numbers(5, 4, dtype=dtype, seed=1)
    weight = numbers(VOCABULARY, 4, dtype=dtype, seed=2)
    weight[7] = weight[3]  # equal logits: the lower id goes first
    targets = torch.tensor([0, 511, 512, VOCABULARY - 1, 7])
    options = LogprobOptions(logits="rounded" if logits == "rounded" else "float32")
    keywords: dict[str, Any] = {"temperature": 0.7, "options": options}
    args: Any = (hidden, weight, targets)
    expected = reference.token_logprob(*args, top_k=top_k, **keywords)
    found = token_logprob.token_logprob(*args, top_k=top_k, dot="in_order", **keywords)
    same_bits(tuple(found), tuple(expected))
    slopes = [numbers(5, dtype=torch.float32, seed=s) for s in (3, 4)]
    inputs: Any = (*slopes, *args, expected)
    carry = numbers(VOCABULARY, 4, dtype=torch.float32, seed=5)
    for start in (None, carry):
        gradients = token_logprob.token_logprob_backward(
            *inputs, carry=start, dot="in_order", **keywords
        )
        same_bits(
            gradients,
            reference.token_logprob_backward(*inputs, carry=start, **keywords),
        )
