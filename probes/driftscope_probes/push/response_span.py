"""Each sequence from its first to its last unmasked token: what padding and prompts leave.

In: a mask [tokens] and the limits of the sequences. Out: which tokens stay, and their new limits.
Masked tokens in between stay (tool output, say), so that places within a response stay true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ResponseSpan:
    keep: NDArray[np.bool_]  # [tokens]
    cu_seqlens: NDArray[np.int64]  # [sequences + 1], of the tokens that stay


def response_span(mask: NDArray[np.bool_], cu_seqlens: NDArray[np.int64]) -> ResponseSpan:
    """A sequence without any unmasked token becomes an empty one; none disappears."""
    unmasked = np.flatnonzero(mask)
    before = np.searchsorted(unmasked, cu_seqlens)
    filled = before[1:] > before[:-1]
    first = unmasked[before[:-1][filled]]
    after_last = unmasked[before[1:][filled] - 1] + 1
    edges = np.zeros(mask.size + 1, dtype=np.int8)
    edges[first] += 1
    edges[after_last] -= 1  # may be the first of the next sequence: the edges cancel out
    lengths = np.zeros(filled.size, dtype=np.int64)
    lengths[filled] = after_last - first
    keep = np.cumsum(edges[:-1], dtype=np.int8).astype(np.bool_)
    return ResponseSpan(keep, np.concatenate([[0], np.cumsum(lengths)]))
