"""Trace: what one side said about a batch of sampled tokens. Pair: two of them on the same tokens.

In: arrays from an engine or a trainer. Out: checked, immutable values. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import TraceError

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


@dataclass(frozen=True, slots=True)
class Pair:
    """Rollout and trainer traces on the same tokens; refuses anything else."""

    rollout: Trace
    trainer: Trace

    def __post_init__(self) -> None:
        if not np.array_equal(self.rollout.cu_seqlens, self.trainer.cu_seqlens):
            raise TraceError(
                "the two traces cut the tokens into different sequences.",
                remedy="score exactly the rollout's sequences, in its order.",
            )
        unequal = np.flatnonzero(self.rollout.token_ids != self.trainer.token_ids)
        if unequal.size:
            first = int(unequal[0])
            raise TraceError(
                f"{unequal.size} token ids differ between rollout and trainer, the first at "
                f"token {first}: {int(self.rollout.token_ids[first])} against "
                f"{int(self.trainer.token_ids[first])}.",
                remedy="pass the engine's token ids to the trainer; never re-tokenise the text.",
            )
        if not np.array_equal(self.rollout.mask, self.trainer.mask):
            raise TraceError(
                "the two traces mask different tokens.",
                remedy="use one mask for both sides.",
            )


def check_cu_seqlens(cu_seqlens: NDArray[np.integer[Any]], tokens: int) -> None:
    """Raise TraceError unless cu_seqlens is a 1-D cumulative length vector ending at `tokens`."""
    shown = np.array2string(np.asarray(cu_seqlens), threshold=8)
    if cu_seqlens.ndim != 1 or cu_seqlens.size < 2:
        raise TraceError(
            f"cu_seqlens has shape {cu_seqlens.shape}.",
            remedy="give a 1-D vector [sequences + 1] that starts with 0.",
        )
    # Compared, not subtracted: a difference of 64-bit integers can wrap around to a good sign.
    falls = np.any(cu_seqlens[1:] < cu_seqlens[:-1])
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or falls:
        raise TraceError(
            f"cu_seqlens {shown} does not rise from 0 to the number of tokens, {tokens}.",
            remedy="give cumulative lengths: 0, len_0, len_0 + len_1, …, tokens.",
        )
