"""The fast implementations as `ops` calls them. Out: Implementation objects."""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.cpu import (
    attention,
    bmm,
    linear,
    linear_backward,
    norm,
    reduction,
    rotary,
    softmax,
    swiglu,
    token_logprob,
)
from driftscope_kernels.op_functions import named, op_functions
from driftscope_kernels.registry import Implementation

FUNCTIONS = op_functions(
    *(linear, linear_backward, bmm, norm, softmax, reduction, swiglu, rotary, token_logprob),
    attention,
)


def implementations() -> Iterator[Implementation]:
    """Nothing is built before the first call."""
    return named("cpu", FUNCTIONS)
