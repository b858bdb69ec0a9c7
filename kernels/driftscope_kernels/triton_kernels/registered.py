"""The Triton kernels by the names of the reference. Out: Implementation objects.

Importing this imports Triton; `driftscope_kernels` itself does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from driftscope_kernels.reference.arrays import DTYPES
from driftscope_kernels.registry import Implementation
from driftscope_kernels.triton_kernels import (
    attention,
    attention_backward,
    linear_backward,
    norm,
    reduction,
    softmax,
    swiglu,
    token_logprob,
)
from driftscope_kernels.triton_kernels.bmm import bmm
from driftscope_kernels.triton_kernels.linear import linear
from driftscope_kernels.triton_kernels.rotary import rotary

FUNCTIONS = (
    linear,
    linear_backward.linear_weight_grad,
    linear_backward.linear_bias_grad,
    bmm,
    norm.rms_norm,
    norm.rms_norm_backward,
    norm.add_rms_norm,
    norm.add_rms_norm_backward,
    softmax.softmax,
    softmax.softmax_backward,
    softmax.log_softmax,
    softmax.log_softmax_backward,
    softmax.logsumexp,
    softmax.logsumexp_backward,
    reduction.sum,
    reduction.mean,
    swiglu.swiglu,
    swiglu.swiglu_backward,
    rotary,
    token_logprob.token_logprob,
    token_logprob.token_logprob_backward,
    attention.attention,
    attention_backward.attention_backward,
)


def implementations() -> Iterator[Implementation]:
    """The op of each is the name of the function."""
    for function in FUNCTIONS:
        yield Implementation(function.__name__, "triton", function, frozenset(DTYPES))
