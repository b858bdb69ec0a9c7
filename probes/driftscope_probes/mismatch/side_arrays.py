"""What else is known about the tokens and sequences of a comparison: optional arrays, checked.

In: what the caller gave. Out: SideArrays, or a TraceError that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.errors import TraceError
from driftscope_probes.mismatch.arrays import FloatArray, IntArray
from driftscope_probes.mismatch.paired_logprobs import PairedLogprobs, as_array

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
