"""The Triton kernels by the names of the reference. Out: Implementation objects.

Importing this imports Triton; `driftscope_kernels` itself does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.registry import Implementation, named, op_functions
from driftscope_kernels.triton_kernels import (
    attention,
    attention_backward,
    linear,
    norm,
    reduction,
    rotary,
    softmax,
    swiglu,
    token_logprob,
)

FUNCTIONS = op_functions(
    *(linear, norm, softmax, reduction, swiglu, rotary, token_logprob, attention),
    attention_backward,
)


def implementations() -> Iterator[Implementation]:
    return named("triton", FUNCTIONS)
