"""The tokens that both sides run on: prompts with the responses that the engine sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """A forward pass reads all tokens of a sequence but its last: these are the sample's rows."""

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]  # none is empty

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[sequences] rows"""
        pairs = zip(self.prompts, self.responses, strict=True)
        return np.array([len(p) + len(r) - 1 for p, r in pairs], np.int64)

    @cached_property
    def cu_seqlens(self) -> NDArray[np.int64]:
        """[sequences + 1] in rows"""
        return np.cumsum([0, *self.lengths], dtype=np.int64)

    @property
    def rows(self) -> int:
        return int(self.cu_seqlens[-1])

    def sequence(self, index: int) -> tuple[int, ...]:
        """All its tokens, the last one too."""
        return self.prompts[index] + self.responses[index]

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """[rows] what is read"""
        read = [self.sequence(index)[:-1] for index in range(len(self.prompts))]
        return np.concatenate([np.array(one, np.int64) for one in read])

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """[rows] the token after each row"""
        after = [self.sequence(index)[1:] for index in range(len(self.prompts))]
        return np.concatenate([np.array(one, np.int64) for one in after])

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """[rows]"""
        return np.concatenate([np.arange(length) for length in self.lengths])

    @cached_property
    def scored(self) -> NDArray[np.int64]:
        """[response tokens] the row before each, whose logits give its log-probability"""
        starts = zip(self.cu_seqlens, self.prompts, self.responses, strict=False)
        return np.concatenate(
            [int(at) + len(p) - 1 + np.arange(len(r), dtype=np.int64) for at, p, r in starts]
        )

    def place_of(self, row: int) -> tuple[int, int]:
        """Sequence and position of a row."""
        sequence = int(np.searchsorted(self.cu_seqlens, row, side="right")) - 1
        return sequence, row - int(self.cu_seqlens[sequence])
