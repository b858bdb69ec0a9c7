"""Whichever layout a trainer has its tensors in, one [tokens, …] tensor of each and cu_seqlens.

In: copies: an entry per sequence, flat with cu_seqlens, or padded with a mask. Out: tensors to
send, or MalformedStep with what to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep
from driftscope_client.lengths import STOP_TOKEN, lengths_fault
from driftscope_client.snapshot import REQUIRED, TENSORS, CopiedArray, Copy, is_per_sequence
from driftscope_client.step_body import StoredTensor, dtype_name, stored

LAYOUTS = (
    "give one array or list per sequence, flat [tokens] tensors with cu_seqlens, or padded "
    "[sequences, longest] tensors with a mask."
)
#: May be given once per sequence: GRPO has one advantage for all tokens of a response.
ONE_FOR_ALL = ("advantages",)
#: May be given once per token: a partial rollout goes on with other weights.
VERSION, TOKEN_VERSION = "behavior_version", "token_behavior_version"
#: A list of Python numbers carries no dtype: floats are float64, as Python has them.
LISTED_AS: Mapping[str, type] = {
    "logprob": np.float64,
    "number": np.float64,
    "integer": np.int64,
    "flag": np.int64,
    "expert": np.int64,
}


def step_tensors(copies: Mapping[str, Copy], rank: int | None = None) -> dict[str, StoredTensor]:
    """rank: of every sequence, where the caller did not give one for each."""
    for name in REQUIRED:
        if name not in copies:
            raise MalformedStep(
                f"there is no {name}; the step needs both sides.",
                remedy=f"give {name}: the log-probabilities that this side gave to the tokens.",
            )
    joined = _one_tensor_each(copies)
    if rank is not None and "rank" not in joined:
        sequences = max(0, joined["cu_seqlens"].values.size - 1)
        joined["rank"] = CopiedArray(np.full(sequences, rank, dtype=np.int64))
    tensors = {name: stored(name, joined[name]) for name in TENSORS if name in joined}
    _check_counts(tensors)
    return tensors


def _one_tensor_each(copies: Mapping[str, Copy]) -> dict[str, CopiedArray]:
    """[tokens, …] of every tensor, and cu_seqlens, from whichever layout was given."""
    lengths = _lengths(copies)
    joined = {name: _joined(name, copy) for name, copy in copies.items()}
    if lengths is not None:
        joined["cu_seqlens"] = CopiedArray(np.cumsum([0, *lengths], dtype=np.int64))
        return _expanded(joined)
    flat = "cu_seqlens" in joined
    joined = {name: _without_ones(name, one, flat) for name, one in joined.items()}
    first = joined[REQUIRED[0]].values
    if first.ndim == 2:
        return _packed(joined, (first.shape[0], first.shape[1]))
    if "cu_seqlens" not in joined:
        raise MalformedStep(f"{REQUIRED[0]} is flat, and there is no cu_seqlens.", remedy=LAYOUTS)
    return _expanded(joined)


def _lengths(copies: Mapping[str, Copy]) -> list[int] | None:
    """Sequence lengths where each sequence has its own entry. All such tensors must agree."""
    lengths: list[int] | None = None
    for name, copy in copies.items():
        if not isinstance(copy, list) or not is_per_sequence(copy):
            continue
        own = [_entry_length(name, one) for one in copy]
        if TENSORS[name][0] != "token" and not (name == VERSION and set(own) != {1}):
            continue
        if lengths is None:
            lengths, first = own, name
        elif name in ONE_FOR_ALL and set(own) == {1} and len(own) == len(lengths):
            continue  # one for each sequence
        elif fault := lengths_fault(name, own, first, lengths):
            raise MalformedStep(fault.message, remedy=fault.remedy)
    if lengths is not None and "cu_seqlens" in copies:
        raise MalformedStep(
            "there is one entry per sequence, and cu_seqlens as well.",
            remedy="leave cu_seqlens out: the entries say how long each sequence is.",
        )
    return lengths


def _entry_length(name: str, one: Copy) -> int:
    if isinstance(one, CopiedArray):
        return len(_row(name, one.values))
    return sum(_entry_length(name, part) for part in one) if is_per_sequence(one) else len(one)


def _row(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """One sequence: [tokens, …], of what may come as [1, tokens, …] or, of numbers, [tokens, 1]."""
    inner = 2 if TENSORS[name][1] == "expert" else 0
    if values.ndim == inner + 2 and values.shape[0] == 1:
        values = values[0]
    elif values.ndim == 2 and values.shape[1] == 1 and not inner:
        values = values[:, 0]
    return np.atleast_1d(values)  # a label of one sequence may come without any dimension


def _joined(name: str, copy: Copy) -> CopiedArray:
    if isinstance(copy, CopiedArray):
        return copy
    if not is_per_sequence(copy):
        return _listed(name, copy)
    parts = [_joined(name, one) for one in copy if isinstance(one, CopiedArray) or one]
    parts = parts or [_listed(name, [])]
    kinds = dict.fromkeys((dtype_name(part), _row(name, part.values).shape[1:]) for part in parts)
    if len(kinds) > 1:
        shown = " and ".join(f"{dtype} of shape [tokens{_dims(rest)}]" for dtype, rest in kinds)
        raise MalformedStep(
            f"{name} has sequences of different dtypes or shapes: {shown}.",
            remedy=f"give every sequence of {name} in one dtype, with one value per token.",
        )
    values = [_row(name, part.values) for part in parts]
    return CopiedArray(np.concatenate(values), parts[0].bfloat16)


def _dims(shape: tuple[int, ...]) -> str:
    return "".join(f", {size}" for size in shape)


def _without_ones(name: str, tensor: CopiedArray, flat: bool) -> CopiedArray:
    """Dimensions of 1 that say nothing are dropped: [1, tokens] beside cu_seqlens, [rows, n, 1].

    flat: there is a cu_seqlens, so that one dimension counts tokens.
    """
    per, holds = TENSORS[name]
    values, inner = tensor.values, 2 if holds == "expert" else 0
    if per != "token":
        values = values.reshape(-1) if 1 in values.shape else values
    elif flat:
        values = _row(name, values)
    elif not inner and values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    return CopiedArray(values, tensor.bfloat16)


def _expanded(
    tensors: dict[str, CopiedArray], shape: tuple[int, int] | None = None
) -> dict[str, CopiedArray]:
    """What may be given per sequence or per token, in the one shape that it is sent in.

    shape: (sequences, longest) where padded. Where both readings fit, a number is of its token and
    a version of its sequence, which is the same.
    """
    tokens = tensors[REQUIRED[0]].values.size
    limits = np.arange(shape[0] + 1) * shape[1] if shape else tensors["cu_seqlens"].values
    sequences, expanded = limits.size - 1, dict(tensors)
    for name in ONE_FOR_ALL:
        given = tensors.get(name)
        if given is None or given.values.size != sequences or sequences == tokens:
            continue
        lengths = np.diff(limits)
        if limits.size < 2 or (lengths < 0).any():
            continue  # a fault of cu_seqlens, which the service names
        values = np.repeat(given.values.reshape(-1), lengths)
        expanded[name] = CopiedArray(values.reshape(shape or -1), given.bfloat16)
    version = tensors.get(VERSION)
    if version is not None and version.values.size == tokens != sequences:
        if TOKEN_VERSION in tensors:
            raise MalformedStep(
                f"{VERSION} is one per token, and there is a {TOKEN_VERSION} as well.",
                remedy=f"give one per token as {TOKEN_VERSION} alone.",
            )
        expanded[TOKEN_VERSION] = expanded.pop(VERSION)
    return expanded


def _listed(name: str, numbers: list[Any]) -> CopiedArray:
    holds = TENSORS[name][1]
    try:
        if holds in ("logprob", "number"):
            numbers = [np.nan if number is None else number for number in numbers]
        elif any(type(number) is float for number in numbers):
            raise TypeError("a number is not an integer")
        return CopiedArray(np.array(numbers, dtype=LISTED_AS[holds]))
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedStep(
            f"{name} cannot be read as numbers: {error}.",
            remedy=f"give {name} as numbers, one per token or sequence; None where there is none.",
        ) from error


def _packed(tensors: dict[str, CopiedArray], shape: tuple[int, int]) -> dict[str, CopiedArray]:
    """Each row from its first to its last unmasked token; a row without any becomes empty."""
    if "mask" not in tensors or "cu_seqlens" in tensors:
        raise MalformedStep(
            f"{REQUIRED[0]} is padded, {list(shape)}: that takes a mask, and no cu_seqlens.",
            remedy=LAYOUTS,
        )
    tensors = _expanded(tensors, shape)
    for name, tensor in tensors.items():
        if TENSORS[name][0] == "token" and tensor.values.shape[:2] != shape:
            raise _other_shape(name, tensor.values.shape, shape)
    keep, lengths = _span(tensors["mask"].values != 0)
    packed = {
        name: CopiedArray(tensor.values[keep], tensor.bfloat16)
        if TENSORS[name][0] == "token"
        else tensor
        for name, tensor in tensors.items()
    }
    return {**packed, "cu_seqlens": CopiedArray(np.concatenate([[0], np.cumsum(lengths)]))}


def _other_shape(name: str, own: tuple[int, ...], shape: tuple[int, ...]) -> MalformedStep:
    message = f"{name} has shape {list(own)}; {REQUIRED[0]} has {list(shape)}."
    if len(own) == 2 and own[0] == shape[0]:
        columns = abs(own[1] - shape[1])
        return MalformedStep(
            message,
            remedy=f"the columns differ by {columns}: give both sides the same tokens; where one "
            "leaves out the first or the last token (logits[:, :-1]), cut the other alike.",
        )
    return MalformedStep(message, remedy=f"give {name} one value per token of {REQUIRED[0]}.")


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
    expected = {
        **{"token": tokens, "sequence": limits - 1, "limit": limits},
        "prompt": _prompt_tokens(tensors),
    }
    for name, tensor in tensors.items():
        per, holds = TENSORS[name]
        dimensions = 3 if holds == "expert" else 1
        if tensor.values.ndim != dimensions or len(tensor.values) != expected[per]:
            raise MalformedStep(
                f"{name} has shape {list(tensor.values.shape)}; the step has {tokens} tokens in "
                f"{limits - 1} sequences.",
                remedy=_right_shape(name, tensor.values.size, tokens, limits - 1),
            )


def _prompt_tokens(tensors: Mapping[str, StoredTensor]) -> int:
    """How many prompt_token_ids there must be."""
    if "prompt_token_ids" not in tensors:
        return 0
    if "prompt_lengths" not in tensors:
        raise MalformedStep(
            "there are prompt_token_ids, and no prompt_lengths.",
            remedy="give prompt_lengths: how many of prompt_token_ids belong to each sequence.",
        )
    return int(tensors["prompt_lengths"].values.sum(dtype=np.int64))


def _right_shape(name: str, size: int, tokens: int, sequences: int) -> str:
    per, holds = TENSORS[name]
    if per == "prompt":
        return (
            "give every prompt once per sequence, without padding, one after another: as many ids "
            "as prompt_lengths come to."
        )
    if holds == "expert":
        return f"give {name} as [{tokens}, layers, experts of a token]."
    if per == "token" and sequences and abs(size - tokens) == sequences:
        more = "fewer" if size < tokens else "more"
        return (
            f"{name} has one value {more} for every sequence: usually {STOP_TOKEN}. "
            f"Give one for each of the {tokens} tokens."
        )
    return f"give {name} one value per {per}: {tokens if per == 'token' else sequences} in all."
