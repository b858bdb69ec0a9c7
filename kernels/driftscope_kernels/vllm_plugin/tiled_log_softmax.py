"""log_softmax whose sum goes over the vocabulary in tiles, as `ops.token_logprob` adds it up.

In: logits [rows, vocabulary], any dtype. Out: float32, nats: for every token the bits that
`ops.token_logprob` has for it as a target, from hidden states that give these logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.cpu.token_logprob import LARGEST, TARGET_LOGIT
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.fma import Float32, fma
from driftscope_kernels.reference.lanes import lane_sum, row_max
from driftscope_kernels.reference.log import log
from driftscope_kernels.reference.token_logprob import VOCABULARY_TILE

ZERO = np.float32(0)


def tiled_log_softmax(logits: Tensor) -> Tensor:
    """(z − max) − log Σ exp(z − max)."""
    built = operators()
    if built is None or logits.numel() == 0:
        return portable(logits)
    largest, log_total = _compiled_sums(logits, built)
    return logits.to(torch.float32, copy=True).sub_(largest).sub_(log_total)


def _compiled_sums(logits: Tensor, built: Any) -> tuple[Tensor, Tensor]:
    """max and log Σ exp(z − max), [rows, 1]."""
    states = torch.zeros(len(logits), 4)
    states[:, LARGEST] = float("-inf")
    no_targets = torch.full((len(logits),), -1)
    no_top = torch.empty(len(logits), 0), torch.empty(len(logits), 0, dtype=torch.int64)
    merge = built.logprob_tile.default
    for tile in logits.split(VOCABULARY_TILE, 1):  # type: ignore[no-untyped-call]
        # Where the tile begins matters to targets alone.
        merge(tile, 1.0, no_targets, 0, states, *no_top, "")
    largest = states[:, LARGEST, None].clone()
    # What is finished then is the logarithm alone: (0 − 0) − log Σ.
    states[:, LARGEST] = states[:, TARGET_LOGIT] = 0.0
    negative, _ = built.logprob_finish.default(states, no_top[0], "")
    return largest, -negative[:, None]


@np.errstate(all="ignore")
def portable(logits: Tensor) -> Tensor:
    """The same bits without a compiler, as `reference.token_logprob` merges its tiles."""
    wide = widened(logits)
    largest = np.full(len(wide), -np.inf, np.float32)
    total = np.zeros(len(wide), np.float32)
    for start in range(0, wide.shape[1], VOCABULARY_TILE):
        largest, total = _merged(largest, total, wide[:, start : start + VOCABULARY_TILE])
    return rounded((wide - largest[:, None]) - log(total)[:, None], torch.float32)


def _merged(largest: Float32, total: Float32, tile: Float32) -> tuple[Float32, Float32]:
    own = row_max(tile)
    own_total = np.where(own == -np.inf, ZERO, lane_sum(exp(tile - own[:, None])))
    top = np.maximum(largest, own)
    left, right = (exp(np.where(side == top, ZERO, side - top)) for side in (largest, own))
    return top, fma(own_total, right, total * left)
