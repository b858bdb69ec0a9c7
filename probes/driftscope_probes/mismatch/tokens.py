"""Two arrays of log-probabilities on the same tokens, checked: what every comparison starts from.

In: what the caller gave. Out: PairedLogprobs, or a TraceError that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.arrays import BoolArray, IntArray, LogprobArray
from driftscope_probes.trace import check_cu_seqlens


@dataclass(frozen=True, slots=True)
class PairedLogprobs:
    """Sequence i occupies the half-open range cu_seqlens[i]:cu_seqlens[i + 1]."""

    rollout: LogprobArray  # [tokens], nats, dtype as given (the bits are compared too)
    trainer: LogprobArray  # [tokens], nats, dtype as given
    cu_seqlens: IntArray  # [sequences + 1]
    mask: BoolArray | None  # [tokens], True where the token takes part; None: all do


def paired_logprobs(
    rollout: ArrayLike, trainer: ArrayLike, cu_seqlens: ArrayLike, mask: ArrayLike | None = None
) -> PairedLogprobs:
    """Check shapes and dtypes; raise TraceError where they cannot be compared."""
    rollout_array = _logprobs("rollout_logprobs", rollout)
    trainer_array = _logprobs("trainer_logprobs", trainer)
    if rollout_array.shape != trainer_array.shape:
        raise TraceError(
            f"rollout_logprobs has {rollout_array.size} tokens, "
            f"trainer_logprobs has {trainer_array.size}.",
            remedy="score exactly the rollout's tokens: one value per token on both sides.",
        )
    return PairedLogprobs(
        rollout_array,
        trainer_array,
        _cu_seqlens(cu_seqlens, rollout_array.size),
        None if mask is None else _mask(mask, rollout_array.size),
    )


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """What the caller gave as an array of any shape and dtype; TraceError if it is none."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:  # ragged lists, tensors of a dtype numpy lacks
        raise TraceError(
            f"{name} is not an array: {error}",
            remedy=f"give {name} as a 1-D numpy array.",
        ) from error


def _logprobs(name: str, value: ArrayLike) -> LogprobArray:
    array = as_array(name, value)
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TraceError(
            f"{name} has dtype {array.dtype}; accepted are float32 and float64.",
            remedy="widen lower precisions to float32, which is exact; never round to fit.",
        )
    if array.ndim != 1:
        raise TraceError(
            f"{name} has shape {array.shape}; accepted is one value per token, [tokens].",
            remedy="concatenate the sequences and give their limits in cu_seqlens.",
        )
    return array


def _cu_seqlens(value: ArrayLike, tokens: int) -> IntArray:
    array = as_array("cu_seqlens", value)
    if not np.issubdtype(array.dtype, np.integer):
        raise TraceError(
            f"cu_seqlens has dtype {array.dtype}; accepted are integers.",
            remedy="give cumulative lengths as int32 or int64: 0, len_0, len_0 + len_1, …, tokens.",
        )
    # Signed and wide before the check: the differences of a falling unsigned vector wrap around.
    limits = array.astype(np.int64)
    check_cu_seqlens(limits, tokens)
    return limits


def _mask(value: ArrayLike, tokens: int) -> BoolArray:
    array = as_array("mask", value)
    if array.shape != (tokens,):
        raise TraceError(
            f"mask has shape {array.shape}, the log-probabilities have shape ({tokens},).",
            remedy="give one mask value per token.",
        )
    if array.dtype == np.bool_:
        return array
    if not np.issubdtype(array.dtype, np.integer) or np.any((array != 0) & (array != 1)):
        raise TraceError(
            f"mask has dtype {array.dtype} or values other than 0 and 1.",
            remedy="give booleans, or integers 0 (left out) and 1 (takes part).",
        )
    return array.astype(np.bool_)
