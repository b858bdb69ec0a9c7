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
    kept = block.mask & np.isfinite(block.rollout) & np.isfinite(block.trainer)
    rollout = block.rollout[kept].astype(np.float64)
    trainer = block.trainer[kept].astype(np.float64)
    diff = trainer - rollout
    before = np.concatenate([[0], np.cumsum(kept)])
    starts = np.repeat(block.cu_seqlens[:-1], np.diff(block.cu_seqlens))
    index = np.flatnonzero(kept) - starts[kept]
    return KeptTokens(rollout, trainer, diff, np.abs(diff), index, before[block.cu_seqlens])
