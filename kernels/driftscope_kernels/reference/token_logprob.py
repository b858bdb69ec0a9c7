"""Log-probability of given tokens straight from hidden states: the vocabulary goes by in tiles.

In: hidden [T, K], lm_head weight [V, K], targets [T]. Out: TokenLogprobs, float32 [T]; no [T, V].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from driftscope_kernels.options import VOCABULARY_TILE, LogprobOptions
from driftscope_kernels.reference.arithmetic import Float32, fma, fold, lane_dot, lane_sum, row_max
from driftscope_kernels.reference.arrays import rounded, rounded_float32, widened
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.linear import chain
from driftscope_kernels.reference.log import log

ZERO = np.float32(0)


class TokenLogprobs(NamedTuple):
    """Per row, nats. `largest`, `total` and `moment` are what the gradient needs to know of z."""

    logprob: Tensor  # [T] float32: log softmax(z)[target]
    entropy: Tensor  # [T] float32: −Σ p·log p
    top_logprobs: Tensor  # [T, top_k] float32, falling; equal ones by rising id
    top_ids: Tensor  # [T, top_k] int64
    largest: Tensor  # [T] float32: max z
    total: Tensor  # [T] float32: Σ exp(z − max)
    moment: Tensor  # [T] float32: Σ exp(z − max)·(z − max)


class _Sums(NamedTuple):
    """Over the tiles so far, [T] each."""

    largest: Float32
    total: Float32
    moment: Float32


class _Top(NamedTuple):
    """The largest logits so far [T, ≤ top_k] and their ids, falling."""

    logits: Float32
    ids: npt.NDArray[np.int64]


@np.errstate(all="ignore")
def token_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    top_k: int,
    options: LogprobOptions,
) -> TokenLogprobs:
    """Logits by the linear contract, rounded if asked, divided by the temperature in float32."""
    rows = np.arange(len(hidden))
    wanted = targets.numpy()
    target_logit = np.zeros(len(hidden), np.float32)
    sums = _Sums(*(np.full(len(hidden), v, np.float32) for v in (-np.inf, 0, 0)))
    top = _Top(np.zeros((len(hidden), 0), np.float32), np.zeros((len(hidden), 0), np.int64))
    for start, logits in _tiles(hidden, weight, temperature, options):
        here = (wanted >= start) & (wanted < start + logits.shape[1])
        target_logit[here] = logits[rows[here], wanted[here] - start]
        sums = _merged(sums, _tile_sums(logits))
        top = _merged_top(top, start, logits, top_k)
    log_total = log(sums.total)
    top_logprobs = (top.logits - sums.largest[:, None]) - log_total[:, None]
    return TokenLogprobs(
        logprob=rounded((target_logit - sums.largest) - log_total, torch.float32),
        entropy=rounded(log_total - sums.moment / sums.total, torch.float32),
        top_logprobs=rounded(top_logprobs, torch.float32),
        top_ids=torch.from_numpy(top.ids),
        **{name: rounded(value, torch.float32) for name, value in sums._asdict().items()},
    )


@np.errstate(all="ignore")
def token_logprob_backward(
    dlogprob: Tensor,
    dentropy: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    result: TokenLogprobs,
    *,
    temperature: float,
    options: LogprobOptions,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """dhidden in the dtype of hidden, dweight [V, K] float32; logits are computed again by tile.

    The gradient of the logits stays in float32: dhidden is Σ over v ascending, one fma each;
    dweight goes in blocks of rows as for a linear layer, by the float32 contract.
    """
    wide_hidden, wide_weight = widened(hidden), widened(weight)
    dhidden = np.zeros(wide_hidden.shape, np.float32)
    dweight = np.zeros(wide_weight.shape, np.float32) if carry is None else widened(carry).copy()
    for start, logits in _tiles(hidden, weight, temperature, options):
        slope = _slope(logits, start, targets, result, dlogprob, dentropy) / np.float32(temperature)
        tile = slice(start, start + logits.shape[1])
        dhidden = chain(slope, wide_weight[tile].T, torch.float32, dhidden)
        dweight[tile] = _tile_weight_grad(slope, wide_hidden, dweight[tile])
    return rounded(dhidden, hidden.dtype), rounded(dweight, torch.float32)


def _tiles(
    hidden: Tensor, weight: Tensor, temperature: float, options: LogprobOptions
) -> Iterator[tuple[int, Float32]]:
    rows = widened(hidden)
    for start in range(0, len(weight), VOCABULARY_TILE):
        tile = widened(weight[start : start + VOCABULARY_TILE])
        logits = chain(rows, tile, hidden.dtype)
        if options.logits == "rounded":
            logits = rounded_float32(logits, hidden.dtype)
        yield start, logits / np.float32(temperature)


def _tile_sums(logits: Float32) -> _Sums:
    """Sums over one tile; a tile of nothing but −∞ counts as empty."""
    largest = row_max(logits)
    below = logits - largest[:, None]
    terms = exp(below)
    # A term of 0 adds 0 to the moment, also where z is −∞.
    moment = lane_dot(terms, np.where(terms == 0, ZERO, below))
    empty = largest == -np.inf
    return _Sums(largest, np.where(empty, ZERO, lane_sum(terms)), np.where(empty, ZERO, moment))


def _merged(left: _Sums, right: _Sums) -> _Sums:
    """Both brought to the larger maximum: a = exp(left − max), b = exp(right − max).

    total = fma(right.total, b, left.total·a)
    moment = fma(moved right moment, b, moved left moment·a), moved = fma(total, own − max, moment)
    """
    largest = np.maximum(left.largest, right.largest)
    (a, left_moment), (b, right_moment) = (_moved(side, largest) for side in (left, right))
    return _Sums(
        largest,
        fma(right.total, b, left.total * a),
        fma(right_moment, b, left_moment * a),
    )


def _moved(side: _Sums, largest: Float32) -> tuple[Float32, Float32]:
    """exp(own max − max) and the moment about the new maximum; 0 where that side is negligible."""
    down = np.where(side.largest == largest, ZERO, side.largest - largest)
    factor = exp(down)
    return factor, np.where(factor == 0, ZERO, fma(side.total, down, side.moment))


def _merged_top(top: _Top, start: int, logits: Float32, top_k: int) -> _Top:
    """Stable by falling logit: of equal logits the one with the lower id comes first."""
    if top_k == 0:
        return top
    ids = np.broadcast_to(np.arange(start, start + logits.shape[1]), logits.shape)
    all_logits = np.concatenate([top.logits, logits], axis=1)
    all_ids = np.concatenate([top.ids, ids], axis=1)
    order = np.argsort(-all_logits, axis=1, kind="stable")[:, :top_k]
    return _Top(
        np.take_along_axis(all_logits, order, axis=1), np.take_along_axis(all_ids, order, axis=1)
    )


def _slope(
    logits: Float32,
    start: int,
    targets: Tensor,
    result: TokenLogprobs,
    dlogprob: Tensor,
    dentropy: Tensor,
) -> Float32:
    """d(tile of z) [T, tile] = dlogprob·(1[v = target] − p) − dentropy·p·(log p + H)."""
    largest, total, entropy, g, g_entropy = (
        widened(v)[:, None]
        for v in (result.largest, result.total, result.entropy, dlogprob, dentropy)
    )
    logp = (logits - largest) - log(total)
    p = exp(logp)
    is_target = targets.numpy()[:, None] == np.arange(start, start + logits.shape[1])
    slope = fma(-p, g, np.where(is_target, g, ZERO))
    surplus = np.where(p == 0, ZERO, logp + entropy)
    return fma(-(p * g_entropy), surplus, slope)


def _tile_weight_grad(slope: Float32, hidden: Float32, carry: Float32) -> Float32:
    return fold(
        len(hidden),
        lambda rows: chain(slope[rows].T, hidden[rows].T, torch.float32),
        carry.shape,
        carry,
    )
