"""The fast implementations as `ops` calls them. Out: Implementation objects."""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.cpu import (
    attention,
    linear,
    norm,
    reduction,
    rotary,
    softmax,
    swiglu,
    token_logprob,
)
from driftscope_kernels.registry import Implementation, named, op_functions

FUNCTIONS = op_functions(linear, norm, softmax, reduction, swiglu, rotary, token_logprob, attention)


def implementations() -> Iterator[Implementation]:
    """Nothing is built before the first call."""
    return named("cpu", FUNCTIONS)
