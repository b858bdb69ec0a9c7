"""PromptBatch: the token ids both sides start from. In: arrays. Out: a checked, immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from driftscope_probes.trace import check_cu_seqlens


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompt i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1]."""

    token_ids: NDArray[np.int32]  # [prompt tokens]
    cu_seqlens: NDArray[np.int64]  # [prompts + 1]

    def __post_init__(self) -> None:
        check_cu_seqlens(self.cu_seqlens, self.token_ids.size)
        self.token_ids.setflags(write=False)
        self.cu_seqlens.setflags(write=False)

    def __len__(self) -> int:
        return int(self.cu_seqlens.size - 1)

    def ids(self, index: int) -> list[int]:
        ids: list[int] = self.token_ids[
            self.cu_seqlens[index] : self.cu_seqlens[index + 1]
        ].tolist()
        return ids

    @property
    def longest(self) -> int:
        return int(np.diff(self.cu_seqlens).max())

    @staticmethod
    def from_lists(prompts: list[list[int]]) -> PromptBatch:
        lengths = np.array([0, *map(len, prompts)], np.int64)
        flat = np.array([token for prompt in prompts for token in prompt], np.int32)
        return PromptBatch(flat, np.cumsum(lengths))


def write_prompts(prompts: PromptBatch, path: Path) -> None:
    save_file({"token_ids": prompts.token_ids, "cu_seqlens": prompts.cu_seqlens}, path)


def read_prompts(path: Path) -> PromptBatch:
    tensors = load_file(path)
    return PromptBatch(tensors["token_ids"], tensors["cu_seqlens"])
