"""Columns as their writers store them → the dtypes and shapes of the push format.

In: one numpy array per column, in any dtype that a rule accepts. Out: the same values in a dtype
that the rule names, or PushError; what may be given per sequence or per token, in one shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.push.lengths import STOP_TOKEN
from driftscope_probes.push.rules import RULES, PushError
from driftscope_probes.tokens import CUMULATIVE, INT32

# A bfloat16 is the upper half of a float32.
MISSING_BITS = np.uint32(16)
#: May be given once per sequence: GRPO has one advantage for all tokens of a response.
ONE_FOR_ALL = ("advantages",)
#: May be given once per token: a partial rollout goes on with other weights.
VERSION, TOKEN_VERSION = "behavior_version", "token_behavior_version"
#: The first that holds every id is taken; −1, where no route was captured, needs a signed one.
EXPERT_DTYPES = (np.uint8, np.int16, np.uint16, np.int32)


def widened(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """`stored` holds F32 or F16 values, or BF16 bits as uint16; any shape."""
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        bits <<= MISSING_BITS
        return bits.view(np.float32)
    return stored.astype(np.float32, copy=False)


def converted(name: str, stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """dtype: the safetensors name of `stored`. Values never change; PushError for what cannot be
    kept. A mask stays as it is until its values are checked (as_mask)."""
    rule = RULES[name]
    if name == "mask":
        return widened(stored, dtype) if dtype == "BF16" else stored
    if rule.dtypes[0] == "F32":
        return narrowed(name, stored) if dtype == "F64" else widened(stored, dtype)
    if dtype in rule.dtypes:
        return stored
    if rule.inner_dimensions:
        return _experts(name, stored)
    return _int32(name, stored)


def narrowed(name: str, wide: NDArray[np.float64]) -> NDArray[np.float32]:
    """The nearest float32, as the client sends it."""
    with np.errstate(over="ignore"):
        single = wide.astype(np.float32)
    changed = np.isfinite(wide) != np.isfinite(single)
    if changed.any():
        raise PushError(
            f"{name} holds {wide[changed][0]}, beyond the range of float32.",
            remedy=f"look where {name} comes from: no log-probability or advantage is that large.",
        )
    return single


def _int32(name: str, values: NDArray[Any]) -> NDArray[np.int32]:
    outside = (values < INT32.min) | (values > INT32.max)
    if outside.any():
        raise PushError(
            f"{name} holds {values[outside][0]}, outside {INT32.min} to {INT32.max}.",
            remedy=f"give {name} before any offset or hash is applied; int32 holds every real one.",
        )
    return values.astype(np.int32)


def _experts(name: str, ids: NDArray[Any]) -> NDArray[Any]:
    least, largest = (int(ids.min()), int(ids.max())) if ids.size else (0, 0)
    for dtype in EXPERT_DTYPES:
        held = np.iinfo(dtype)
        if held.min <= least and largest <= held.max:
            return ids.astype(dtype)
    raise PushError(
        f"{name} holds ids from {least} to {largest}; accepted is {INT32.min} to {INT32.max}.",
        remedy="give the ids as the router numbered them, before any offset or hash is applied.",
    )


def expanded(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Advantages of sequences → of tokens; versions of tokens under their own name.

    In: [tokens] columns with cu_seqlens. Where both readings fit, an advantage is of its token and
    a version of its sequence, which is the same."""
    found = dict(tensors)
    limits, tokens = found["cu_seqlens"], found["rollout_logprobs"].size
    sequences = limits.size - 1
    lengths = np.diff(limits)
    rising = limits.ndim == 1 and sequences > 0 and bool((lengths >= 0).all())
    for name in ONE_FOR_ALL:
        if rising and name in found and found[name].size == sequences != tokens:
            found[name] = np.repeat(found[name].reshape(-1), lengths)
    if VERSION in found and found[VERSION].size == tokens != sequences:
        if TOKEN_VERSION in found:
            raise PushError(
                f"{VERSION} has one value per token, and there is a {TOKEN_VERSION} as well.",
                remedy=f"give one per token as {TOKEN_VERSION} alone.",
            )
        found[TOKEN_VERSION] = found.pop(VERSION)
    return found


def cu_seqlens_remedy(cu_seqlens: NDArray[np.int64], tokens: int) -> str:
    """What is usually wrong with cumulative lengths that do not fit."""
    if cu_seqlens.size and int(cu_seqlens.min()) >= 0:
        total, last = int(cu_seqlens.sum()), int(cu_seqlens[-1])
        if total == tokens and cu_seqlens[0] != 0:
            return "these are the lengths: give np.cumsum([0, *lengths])."
        if last == tokens and cu_seqlens[0] != 0:
            return "put the 0 in front: the first sequence starts there."
    return CUMULATIVE


def count_remedy(name: str, given: int, tokens: int, sequences: int) -> str:
    """For a flat column with another number of values than the step has tokens."""
    if sequences and abs(given - tokens) == sequences:
        more = "fewer" if given < tokens else "more"
        return (
            f"{name} has one value {more} for every sequence: usually {STOP_TOKEN}. Give one for "
            f"each of the {tokens} tokens."
        )
    if abs(given - tokens) == 1:
        return (
            f"one token is on one side only: {STOP_TOKEN}, or a response cut short. Give {name} "
            "one value for each token of rollout_logprobs."
        )
    return f"give {name} one value for each of the {tokens} tokens of the same step."
