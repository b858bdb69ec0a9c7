"""What a model is called with while it runs the sample, collected pass by pass.

In: rows of the sample, with the tokens and positions that a pass hands to the model. Out:
`Received`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.explain.sample import Sample
from driftscope_probes.explain.sides.base import Received

_UNREAD: Final = -1  # no token


class ReadTokens:
    """Rows that no pass has read are missing from the lengths."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._tokens = np.full(sample.rows, _UNREAD, np.int64)
        self._positions = np.full(sample.rows, _UNREAD, np.int64)

    def add(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> None:
        """All [n]; `rows` of the sample."""
        self._tokens[rows], self._positions[rows] = tokens, positions

    def received(self) -> Received:
        read = self._tokens != _UNREAD
        starts = self._sample.cu_seqlens[:-1]
        return Received(
            tokens=self._tokens.copy(),
            positions=self._positions.copy(),
            lengths=np.add.reduceat(read.astype(np.int64), starts),
        )
