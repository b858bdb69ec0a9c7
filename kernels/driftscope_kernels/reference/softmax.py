"""softmax, log_softmax and logsumexp along any dimension, and their gradients.

In: x, any shape and stride. Out: the same shape (logsumexp: without the dimension), rounded once.
Two passes: the largest element, then exponentials of what is left, summed by lanes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.reference.arithmetic import Float32, fma, lane_dot, lane_sum, row_max
from driftscope_kernels.reference.arrays import along, back, rounded, widened
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.log import log


@np.errstate(all="ignore")
def softmax(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """exp(x − max)·(1 / Σ exp(x − max))."""
    return back(_probabilities(along(x, dim)), x, dim, out_dtype or x.dtype)


@np.errstate(all="ignore")
def log_softmax(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """(x − max) − log Σ exp(x − max)."""
    return back(_logprobs(along(x, dim)), x, dim, out_dtype or x.dtype)


@np.errstate(all="ignore")
def logsumexp(x: Tensor, dim: int, *, out_dtype: torch.dtype | None = None) -> Tensor:
    """max + log Σ exp(x − max); max itself where it is infinite."""
    return rounded(_logsumexp(along(x, dim)), out_dtype or x.dtype).reshape(
        x.movedim(dim, -1).shape[:-1]
    )


@np.errstate(all="ignore")
def softmax_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """dx = p·(dy − Σ dy·p), p recomputed in float32."""
    p, wide_dy = _probabilities(along(x, dim)), along(dy, dim)
    return back(p * (wide_dy - lane_dot(wide_dy, p)[:, None]), x, dim, x.dtype)


@np.errstate(all="ignore")
def log_softmax_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """dx = dy − p·Σ dy, p = exp(log_softmax(x)) recomputed in float32."""
    p, wide_dy = exp(_logprobs(along(x, dim))), along(dy, dim)
    return back(fma(-p, lane_sum(wide_dy)[:, None], wide_dy), x, dim, x.dtype)


@np.errstate(all="ignore")
def logsumexp_backward(dy: Tensor, x: Tensor, dim: int) -> Tensor:
    """dx = dy·p, p = softmax(x) recomputed in float32."""
    p = _probabilities(along(x, dim))
    return back(p * widened(dy).reshape(-1, 1), x, dim, x.dtype)


def shifted(x: Float32) -> tuple[Float32, Float32, Float32]:
    """max [rows, 1], x − max [rows, n], and its exponentials."""
    largest = row_max(x)[:, None]
    below = x - largest
    return largest, below, exp(below)


def _probabilities(x: Float32) -> Float32:
    _, _, terms = shifted(x)
    return terms * (np.float32(1) / lane_sum(terms)[:, None])


def _logprobs(x: Float32) -> Float32:
    _, below, terms = shifted(x)
    return below - log(lane_sum(terms))[:, None]


def _logsumexp(x: Float32) -> Float32:
    largest, _, terms = shifted(x)
    largest = largest[:, 0]
    return np.where(np.isinf(largest), largest, largest + log(lane_sum(terms)))
