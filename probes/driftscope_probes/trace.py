"""Trace: what one side said about a batch of sampled tokens; two of them give Tokens.

In: arrays from an engine or a trainer. Out: checked, immutable values. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import TraceError
from driftscope_probes.tokens import Extras, Tokens, check_cu_seqlens, check_token_ids

Side = Literal["rollout", "trainer"]


@dataclass(frozen=True, slots=True)
class TraceMeta:
    """Who spoke and under which settings: everything that can change the numbers."""

    side: Side
    model: str
    dtype: str  # engine dtype ("bf16") or trainer mode ("autocast-bf16+fp32-head")
    engine: str  # "vllm", "vllm-server", "hf" or "trainer"
    engine_version: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # JSON values only

    def to_dict(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "model": self.model,
            "dtype": self.dtype,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """Response tokens of all sequences, one after another, and their log-probabilities.

    Sequence i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1].
    """

    token_ids: NDArray[np.int32]  # [tokens]
    logprobs: NDArray[np.float32]  # [tokens], nats
    cu_seqlens: NDArray[np.int64]  # [sequences + 1]
    mask: NDArray[np.bool_]  # [tokens], True where the token takes part in a comparison
    meta: TraceMeta

    def __post_init__(self) -> None:
        check_cu_seqlens(self.cu_seqlens, self.token_ids.size)
        for name, array in (("logprobs", self.logprobs), ("mask", self.mask)):
            if array.shape != self.token_ids.shape or array.ndim != 1:
                raise TraceError(
                    f"{name} has shape {array.shape}, token_ids has shape {self.token_ids.shape}.",
                    remedy="give one value per token: 1-D arrays of the same length.",
                )
        for name in ("token_ids", "logprobs", "cu_seqlens", "mask"):
            getattr(self, name).setflags(write=False)

    @property
    def sequences(self) -> int:
        return int(self.cu_seqlens.size - 1)

    def sequence(self, index: int) -> slice:
        return slice(int(self.cu_seqlens[index]), int(self.cu_seqlens[index + 1]))


def both_sides(rollout: Trace, trainer: Trace) -> Tokens:
    """What two traces say about the same tokens; TraceError where the tokens are not the same."""
    if not np.array_equal(rollout.cu_seqlens, trainer.cu_seqlens):
        raise TraceError(
            "the two traces cut the tokens into different sequences.",
            remedy="score exactly the rollout's sequences, in its order.",
        )
    check_token_ids(rollout.token_ids, trainer.token_ids)
    if not np.array_equal(rollout.mask, trainer.mask):
        raise TraceError(
            "the two traces mask different tokens.",
            remedy="use one mask for both sides.",
        )
    return Tokens(
        rollout.logprobs,
        trainer.logprobs,
        rollout.cu_seqlens,
        rollout.mask,
        Extras(token_ids=rollout.token_ids),
    )
