"""What a comparison is given, checked: log-probabilities of both sides, mask, optional arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.number import BoolArray, FloatArray, IntArray, LogprobArray
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


INT32 = np.iinfo(np.int32)  # the wire carries int32; it also keeps every difference inside int64


@dataclass(frozen=True, slots=True, eq=False)
class SideArrays:
    """Given to compare() and profiles(); each array that is there adds numbers or plots."""

    entropy: ArrayLike | None = None  # [tokens] nats, of the trainer's full distribution
    position_ids: ArrayLike | None = None  # [tokens] place in the whole context, prompt included
    turn_ids: ArrayLike | None = None  # [tokens] turn of the conversation
    behavior_version: ArrayLike | None = None  # [sequences] train step whose weights rolled out
    train_version: int | None = None  # train step whose weights scored


@dataclass(frozen=True, slots=True, eq=False)
class CheckedSideArrays:
    entropy: FloatArray | None = None  # [tokens]
    position_ids: IntArray | None = None  # [tokens]
    turn_ids: IntArray | None = None  # [tokens]
    lag: IntArray | None = None  # [sequences] train_version − behavior_version, at least 0


def checked_side_arrays(side: SideArrays | None, pair: PairedLogprobs) -> CheckedSideArrays:
    """Raise TraceError where an array does not fit the log-probabilities."""
    if side is None:
        return CheckedSideArrays()
    tokens = pair.rollout.size
    return CheckedSideArrays(
        entropy=None if side.entropy is None else _entropy(side.entropy, tokens),
        position_ids=_integers("position_ids", side.position_ids, tokens, "token"),
        turn_ids=_integers("turn_ids", side.turn_ids, tokens, "token"),
        lag=_lag(side, pair.cu_seqlens.size - 1),
    )


def _entropy(value: ArrayLike, tokens: int) -> FloatArray:
    array = as_array("entropy", value)
    if array.shape != (tokens,) or array.dtype not in (np.float32, np.float64):
        raise TraceError(
            f"entropy has shape {array.shape} and dtype {array.dtype}; "
            f"accepted is ({tokens},) in float32 or float64.",
            remedy="give one entropy per token, in nats, also for masked tokens.",
        )
    return array.astype(np.float64, copy=False)


def _integers(name: str, value: ArrayLike | None, size: int, of: str) -> IntArray | None:
    if value is None:
        return None
    array = as_array(name, value)
    if array.shape != (size,) or not np.issubdtype(array.dtype, np.integer):
        raise TraceError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; "
            f"accepted are integers of shape ({size},).",
            remedy=f"give one integer per {of}.",
        )
    if array.size and not INT32.min <= int(array.min()) <= int(array.max()) <= INT32.max:
        raise TraceError(
            f"{name} lies between {array.min()} and {array.max()}; accepted is what int32 holds.",
            remedy=f"count {name} from 0.",
        )
    return array.astype(np.int64)


def _lag(side: SideArrays, sequences: int) -> IntArray | None:
    versions = _integers("behavior_version", side.behavior_version, sequences, "sequence")
    if versions is None:
        return None
    if side.train_version is None:
        raise TraceError(
            "behavior_version was given without train_version.",
            remedy="give the train step whose weights scored the tokens as train_version.",
        )
    lag: IntArray = side.train_version - versions
    if lag.size and lag.min() < 0:
        raise TraceError(
            f"behavior_version reaches {versions.max()}, train_version is {side.train_version}.",
            remedy="a rollout cannot come from later weights: count both in the same steps.",
        )
    return lag
