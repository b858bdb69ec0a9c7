"""log_softmax whose sum goes over the vocabulary in tiles, as `ops.token_logprob` adds it up.

In: logits [rows, vocabulary], any dtype. Out: float32, nats.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from driftscope_kernels.cpu.backend import operators
from driftscope_kernels.options import VOCABULARY_TILE
from driftscope_kernels.reference.arithmetic import Float32, fma, lane_sum, row_max
from driftscope_kernels.reference.arrays import rounded, widened
from driftscope_kernels.reference.exp import exp
from driftscope_kernels.reference.log import log

ZERO = np.float32(0)


def tiled_log_softmax(logits: Tensor) -> Tensor:
    """(z − max) − log Σ exp(z − max)."""
    built = operators()
    if built is None or logits.numel() == 0:
        return portable(logits)
    result: Tensor = built.tiled_log_softmax.default(logits, VOCABULARY_TILE, "")
    return result


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
