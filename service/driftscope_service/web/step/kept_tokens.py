"""The tokens of a block that count, and their differences.

In: TokenBlock. Out: KeptTokens: neither masked nor without a finite number on a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftscope_service.store.token_columns import TokenBlock


@dataclass(frozen=True, slots=True, eq=False)
class KeptTokens:
    rollout: NDArray[np.float64]  # [kept], nats
    trainer: NDArray[np.float64]  # [kept], nats
    diff: NDArray[np.float64]  # [kept], trainer − rollout: exact in float64
    abs_diff: NDArray[np.float64]  # [kept]
    index: NDArray[np.int64]  # [kept], place in its sequence, masked tokens counted
    cu_seqlens: NDArray[np.int64]  # [sequences + 1], into the kept ones


def kept_tokens(block: TokenBlock) -> KeptTokens:
    starts = np.repeat(block.cu_seqlens[:-1], np.diff(block.cu_seqlens))
    index = np.arange(block.mask.size) - starts
    kept = block.mask & np.isfinite(block.rollout) & np.isfinite(block.trainer)
    rollout, trainer, limits = block.rollout, block.trainer, block.cu_seqlens
    if not kept.all():
        rollout, trainer, index = rollout[kept], trainer[kept], index[kept]
        limits = np.concatenate([[0], np.cumsum(kept)])[limits]
    wide = rollout.astype(np.float64), trainer.astype(np.float64)
    diff = wide[1] - wide[0]
    return KeptTokens(*wide, diff, np.abs(diff), index, limits)
