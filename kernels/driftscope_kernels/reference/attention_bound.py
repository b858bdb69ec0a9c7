"""How far attention may be from the exact result: an a priori bound, element by element.

In: the inputs of one sequence, all keys contiguous. Out: the exact result and the bound, float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftscope_kernels.attention_options import AttentionOptions
from driftscope_kernels.bounds import FLUSHED, HALF_STEP, UNIT, U
from driftscope_kernels.options import KV_TILE

TANH_STEPS = 8  # soft cap: division, tanh within 2 ULP, product
TILE_STEPS = 4  # of one rescaling: exp (2u), difference, product
STEPS = 24  # exp, lanes merged, division and the like


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
    place = torch.arange(length)
    visible = (place <= position) & (place > position - (window or length))
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
    steps = length + tiles * (TILE_STEPS + span) + 2 * span + STEPS
    unit = UNIT[q.dtype] if options.probabilities == "rounded" else 0.0
    error = weight * (2 * wrong + U * steps + unit) + length * FLUSHED * values.abs().amax()
    total = error + UNIT[q.dtype] * (exact.abs() + error) + HALF_STEP[q.dtype]
    return exact.transpose(0, 1), total.transpose(0, 1)
