"""The reference as implementations that `ops` can call. Out: Implementation objects."""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.reference import (
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
from driftscope_kernels.registry import Implementation, named, op_functions

FUNCTIONS = op_functions(
    *(linear, norm, softmax, reduction, swiglu, rotary, token_logprob, attention),
    attention_backward,
)


def implementations() -> Iterator[Implementation]:
    return named("reference", FUNCTIONS)
