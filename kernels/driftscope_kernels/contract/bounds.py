"""How far from the exact result each op may be: a priori bounds, element by element.

In: inputs of one call. Out: float64 tensors in the shape of the result; for attention, the inputs
of one sequence, the exact result and the bound. First order in the rounding errors, where nothing
overflows; u = 2^-24 for float32 steps, u' for the dtype that is returned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from driftscope_kernels.options import (
    KV_TILE,
    LANES,
    VOCABULARY_TILE,
    AttentionOptions,
    NormOptions,
)

U = 2.0**-24
# Unit roundoff and half the smallest subnormal number of each dtype.
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
HALF_STEP = {torch.float32: 2.0**-150, torch.float16: 2.0**-25, torch.bfloat16: 2.0**-134}
FLUSHED = 2.0**-126  # what flushing loses at most, in bfloat16 products and in exp
EXP_ULPS, LOG_ULPS = 1, 1  # stated in reference/exp.py and reference/log.py; 1 ULP ≤ 2u
SILU_OVERFLOW = 2.0**-121  # |g·e^g| where exp(−g) overflows and silu counts as 0
MERGE_STEPS = 4  # roundings of one merger of vocabulary tiles: exp (2u), product, fma


def _rounding(exact: Tensor, error: Tensor, dtype: torch.dtype) -> Tensor:
    """Bound after one rounding of a value within `error` of `exact`."""
    return error + UNIT[dtype] * (exact.abs() + error) + HALF_STEP[dtype]


def _gamma(steps: float) -> float:
    return steps * U / (1 - steps * U)


def lane_steps(n: int) -> int:
    """Roundings an element of a lane sum goes through: ⌈n/16⌉ in its lane, 4 in the merger."""
    return math.ceil(n / LANES) + int(math.log2(LANES))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """γ(K+4)·(Σ|x·w| + |b|), γ(n) = n·u / (1 − n·u), and u'·|y|; bf16 adds what flushing loses."""
    wide_x, wide_weight = x.double(), weight.double()
    k = x.shape[-1]
    exact, size = wide_x @ wide_weight.T, wide_x.abs() @ wide_weight.abs().T
    if bias is not None:
        exact, size = exact + bias.double(), size + bias.double().abs()
    if x.dtype == torch.bfloat16:
        lost = wide_x.abs().sum(-1, keepdim=True) + wide_weight.abs().sum(-1)
        size = size + FLUSHED * (lost + k) / U
    error = _gamma(k + 4) * size + k * HALF_STEP[torch.float32]
    return _rounding(exact, error, x.dtype)


def sum(x: Tensor, dim: int) -> Tensor:
    """γ(⌈n/16⌉ + 4)·Σ|x|, and u'·|y|."""
    wide = x.double()
    error = _gamma(lane_steps(x.shape[dim])) * wide.abs().sum(dim)
    return _rounding(wide.sum(dim), error, x.dtype)


def mean(x: Tensor, dim: int) -> Tensor:
    """γ(⌈n/16⌉ + 5)·Σ|x| / n, and u'·|y|."""
    wide = x.double()
    error = _gamma(lane_steps(x.shape[dim]) + 1) * wide.abs().mean(dim)
    return _rounding(wide.mean(dim), error, x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float, options: NormOptions) -> Tensor:
    """|y|·γ(½⌈K/16⌉ + 8), u'·|y| for each rounding to the dtype; no square overflows."""
    wide = x.double()
    exact = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
    error = exact.abs() * _gamma(lane_steps(x.shape[-1]) / 2 + 6)
    if options.weight_multiply == "after_cast":
        cast = HALF_STEP[weight.dtype] * weight.double().abs()
        error = error + exact.abs() * UNIT[weight.dtype] + cast
    return _rounding(exact, error, weight.dtype)


def softmax(x: Tensor, dim: int) -> Tensor:
    """p·u·(d + d̄ + ⌈n/16⌉ + 13) + (n+1)·2^-126, and u'·p; d = max − x, d̄ = Σ p·d."""
    below, p, mean_below, _ = _softmax_parts(x, dim)
    steps = lane_steps(x.shape[dim]) + 9
    error = p * U * (below + mean_below + steps) + (x.shape[dim] + 1) * FLUSHED
    return _rounding(p, error, x.dtype)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """u·(d + d̄ + ⌈n/16⌉ + 8 + 2·log s + |y|) + n·2^-126, and u'·|y|; s = Σ exp(x − max)."""
    below, _, mean_below, log_total = _softmax_parts(x, dim)
    exact = -below - log_total
    steps = lane_steps(x.shape[dim]) + 4
    error = U * (below + mean_below + steps + 2 * LOG_ULPS * log_total + exact.abs())
    return _rounding(exact, error + x.shape[dim] * FLUSHED, x.dtype)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """u·(d̄ + ⌈n/16⌉ + 8 + 2·log s + |y|) + n·2^-126, and u'·|y|."""
    _, _, mean_below, log_total = _softmax_parts(x, dim)
    exact = x.double().logsumexp(dim, keepdim=True)
    steps = lane_steps(x.shape[dim]) + 4
    error = U * (mean_below + steps + 2 * LOG_ULPS * log_total + exact.abs())
    return _rounding(exact, error + x.shape[dim] * FLUSHED, x.dtype).squeeze(dim)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """6u·|y| + 2^-121·|up|, and twice u'·|y|."""
    wide = gate.double()
    exact = wide * torch.sigmoid(wide) * up.double()
    unit, half_step = UNIT[gate.dtype], HALF_STEP[gate.dtype]
    error = exact.abs() * (6 * U + unit) + (SILU_OVERFLOW + half_step) * up.double().abs()
    return _rounding(exact, error, gate.dtype)


def rotary(x: Tensor, size: Tensor) -> Tensor:
    """(2u + 2u')·(|x₁·cos| + |x₂·sin|), which is `size`; tables as they are after rounding."""
    return size * (2 * U + 2 * UNIT[x.dtype]) + 3 * HALF_STEP[x.dtype]


def token_logprob(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Twice the largest error of a logit; u·(d + d̄ + 46 + tiles·(5 + span) + 2·log s + |y|).

    The logits are within the bound of `linear` (rounded or not) and one division; span is max − min
    of the logits.
    """
    logits = hidden.double() @ weight.double().T / temperature
    of_logits = linear(hidden, weight) / temperature + U * logits.abs()
    below, _, mean_below, log_total = _softmax_parts(logits, -1)
    exact = (-below - log_total).gather(-1, targets[:, None])
    tiles = math.ceil(len(weight) / VOCABULARY_TILE)
    span = below.amax(-1, keepdim=True)
    steps = lane_steps(VOCABULARY_TILE) + 10 + tiles * (MERGE_STEPS + 1 + span)
    below_target = below.gather(-1, targets[:, None])
    error = U * (below_target + mean_below + steps + 2 * LOG_ULPS * log_total + exact.abs())
    error = error + 2 * of_logits.amax(-1, keepdim=True) + len(weight) * FLUSHED
    return _rounding(exact, error, torch.float32).squeeze(-1)


def _softmax_parts(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """max − x, p, Σ p·(max − x) and log Σ exp(x − max), the last two with the dimension kept."""
    wide = x.double()
    below = wide.amax(dim, keepdim=True) - wide
    p = torch.softmax(wide, dim)
    return below, p, (p * below).sum(dim, keepdim=True), torch.logsumexp(-below, dim, keepdim=True)


TANH_STEPS = 8  # soft cap: division, tanh within 2 ULP, product
TILE_STEPS = 4  # one rescaling: exp (2u), difference, product
ATTENTION_STEPS = 24  # exp, lanes merged, division and the like


def attention_bound(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    options: AttentionOptions,
) -> tuple[Tensor, Tensor]:
    """Σ p·|v|·(2δ + u·(n + ⌈L/64⌉·(4 + s) + 2s + 24)) + n·2^-126·max |v|, and u'·|y|.

    δ is the largest error of a score, u·(D + 2)·|scale|·Σ|q·k|, and 8u·soft_cap more with a soft
    cap; s is max − min of the visible scores, n their number. Rounded probabilities add u'·Σ p·|v|.

    q [Q, H, D] are the last of the tokens of k and v [L, KH, D].
    """
    group, length = q.shape[1] // k.shape[1], len(k)
    queries = q.double().transpose(0, 1)
    keys, values = (x.double().repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
    position = torch.arange(length - len(q), length)[:, None]
    index = torch.arange(length)
    visible = (index <= position) & (index > position - (window or length))
    score = queries @ keys.transpose(1, 2) * scale
    size = queries.abs() @ keys.abs().transpose(1, 2) * abs(scale)
    wrong = (U * (q.shape[2] + 2) * size * visible).amax(-1, keepdim=True)
    if soft_cap:
        score = soft_cap * torch.tanh(score / soft_cap)
        wrong = wrong + TANH_STEPS * U * soft_cap
    span = score.masked_fill(~visible, -torch.inf).amax(-1, keepdim=True)
    span = span - score.masked_fill(~visible, torch.inf).amin(-1, keepdim=True)
    p = torch.softmax(score.masked_fill(~visible, -torch.inf), -1)
    exact, weight = p @ values, p @ values.abs()
    tiles = -(-length // KV_TILE)
    steps = length + tiles * (TILE_STEPS + span) + 2 * span + ATTENTION_STEPS
    unit = UNIT[q.dtype] if options.probabilities == "rounded" else 0.0
    error = weight * (2 * wrong + U * steps + unit) + length * FLUSHED * values.abs().amax()
    total = error + UNIT[q.dtype] * (exact.abs() + error) + HALF_STEP[q.dtype]
    return exact.transpose(0, 1), total.transpose(0, 1)
