"""Copied tensors of one step → packed tensors of the push format, whatever their layout was.

In: snapshot(): packed with cu_seqlens, one entry per sequence, or padded [sequences, longest] with
a mask. Out: StoredTensors by name, packed, in the format's order; MalformedStep where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep
from driftscope_client.snapshot import REQUIRED, TENSORS, CopiedArray, Copy, is_per_sequence
from driftscope_client.step_body import StoredTensor, stored

LAYOUTS = (
    "give one array or list per sequence, flat [tokens] tensors with cu_seqlens, or padded "
    "[sequences, longest] tensors with a mask."
)
#: A list of Python numbers carries no dtype: floats are float64, as Python has them.
LISTED_AS: Mapping[str, type] = {
    "logprob": np.float64,
    "number": np.float64,
    "integer": np.int64,
    "flag": np.int64,
    "expert": np.int64,
}


def step_tensors(copies: Mapping[str, Copy]) -> dict[str, StoredTensor]:
    for name in REQUIRED:
        if name not in copies:
            raise MalformedStep(f"there is no {name}; the step needs both sides.")
    lengths = _lengths(copies)
    joined = {name: _joined(name, copy) for name, copy in copies.items()}
    first = joined[REQUIRED[0]].values
    if lengths is not None:
        joined["cu_seqlens"] = CopiedArray(np.cumsum([0, *lengths], dtype=np.int64))
    elif first.ndim == 2:
        joined = _packed(joined, first.shape)
    elif "cu_seqlens" not in joined:
        raise MalformedStep(f"{REQUIRED[0]} is flat, and there is no cu_seqlens; {LAYOUTS}")
    tensors = {name: stored(name, joined[name]) for name in TENSORS if name in joined}
    _check_counts(tensors)
    return tensors


def _lengths(copies: Mapping[str, Copy]) -> list[int] | None:
    """Sequence lengths where each sequence has its own entry. All such tensors must agree."""
    lengths: list[int] | None = None
    for name, copy in copies.items():
        if TENSORS[name][0] != "token" or not isinstance(copy, list) or not is_per_sequence(copy):
            continue
        own = [len(one.values) if isinstance(one, CopiedArray) else len(one) for one in copy]
        if lengths not in (None, own):
            raise MalformedStep(f"{name} is cut into sequences of other lengths than the rest.")
        lengths = own
    if lengths is not None and "cu_seqlens" in copies:
        raise MalformedStep("there is one entry per sequence and cu_seqlens as well; give one.")
    return lengths


def _joined(name: str, copy: Copy) -> CopiedArray:
    if isinstance(copy, CopiedArray):
        return copy
    if not is_per_sequence(copy):
        return _listed(name, copy)
    parts = [_joined(name, one) for one in copy if isinstance(one, CopiedArray) or one]
    parts = parts or [_listed(name, [])]
    if len({(part.values.dtype, part.bfloat16) for part in parts}) > 1:
        raise MalformedStep(f"{name} has sequences of different dtypes.")
    return CopiedArray(np.concatenate([part.values for part in parts]), parts[0].bfloat16)


def _listed(name: str, numbers: list[Any]) -> CopiedArray:
    holds = TENSORS[name][1]
    try:
        if holds in ("logprob", "number"):
            numbers = [np.nan if number is None else number for number in numbers]
        elif any(type(number) is float for number in numbers):
            raise TypeError("a number is not an integer")
        return CopiedArray(np.array(numbers, dtype=LISTED_AS[holds]))
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedStep(f"{name} cannot be read as numbers: {error}.") from error


def _packed(tensors: dict[str, CopiedArray], shape: tuple[int, ...]) -> dict[str, CopiedArray]:
    """Each row from its first to its last unmasked token; a row without any becomes empty."""
    if "mask" not in tensors or "cu_seqlens" in tensors:
        raise MalformedStep(f"{REQUIRED[0]} is padded, {list(shape)}: it takes a mask; {LAYOUTS}")
    for name, tensor in tensors.items():
        if TENSORS[name][0] == "token" and tensor.values.shape[:2] != shape:
            raise MalformedStep(
                f"{name} has shape {list(tensor.values.shape)}; {REQUIRED[0]} has {list(shape)}."
            )
    keep, lengths = _span(tensors["mask"].values != 0)
    packed = {
        name: CopiedArray(tensor.values[keep], tensor.bfloat16)
        if TENSORS[name][0] == "token"
        else tensor
        for name, tensor in tensors.items()
    }
    return {**packed, "cu_seqlens": CopiedArray(np.concatenate([[0], np.cumsum(lengths)]))}


def _span(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which tokens of [sequences, longest] stay, and how many of each row."""
    rows, longest = mask.shape
    if not longest:
        return mask, np.zeros(rows, dtype=np.int64)
    first = mask.argmax(axis=1)
    end = longest - mask[:, ::-1].argmax(axis=1)
    end = np.where(mask.any(axis=1), end, first)
    index = np.arange(longest)
    keep = (index >= first[:, None]) & (index < end[:, None])
    return keep, (end - first).astype(np.int64)


def _check_counts(tensors: Mapping[str, StoredTensor]) -> None:
    tokens, limits = len(tensors[REQUIRED[0]].values), len(tensors["cu_seqlens"].values)
    expected = {"token": tokens, "sequence": limits - 1, "limit": limits}
    for name, tensor in tensors.items():
        per, holds = TENSORS[name]
        dimensions = 3 if holds == "expert" else 1
        if tensor.values.ndim != dimensions or len(tensor.values) != expected[per]:
            raise MalformedStep(
                f"{name} has shape {list(tensor.values.shape)}; the step has {tokens} tokens in "
                f"{limits - 1} sequences."
            )
