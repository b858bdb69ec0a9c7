"""A step as the body of a request: the tensors of one step, chunked and compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep
from driftscope_client.snapshot import (
    REQUIRED,
    SCHEMA_VERSION,
    TENSORS,
    CopiedArray,
    Copy,
    is_per_sequence,
)

# A bfloat16 is the upper half of a float32.
MISSING_BITS = np.uint32(16)
HALF_AND_SINGLE = {"float16": ("F16", "<f2"), "float32": ("F32", "<f4")}
LEAST_I32, LARGEST_I32 = -(2**31), 2**31 - 1
#: The first that holds every id is taken; −1, where no route was captured, needs a signed one.
EXPERT_DTYPES = {"U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4"}


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    dtype: str  # safetensors name
    values: NDArray[Any]  # little-endian, contiguous; BF16 as uint16


def stored(name: str, given: CopiedArray) -> StoredTensor:
    """MalformedStep names the tensor and what it would take."""
    _, holds = TENSORS[name]
    if holds == "logprob":
        return _logprobs(name, given)
    if holds == "number":
        return StoredTensor("F32", _float32(name, _widened(given)))
    if given.bfloat16 or given.values.dtype.kind not in "iub" + "f" * (holds == "flag"):
        raise MalformedStep(f"{name} has dtype {_dtype(given)}; accepted are integers.")
    if holds == "flag":
        return _flags(name, given.values)
    if holds == "expert":
        return _experts(name, given.values)
    if name == "cu_seqlens":
        return StoredTensor("I64", _little(given.values, "<i8"))
    _check_range(name, given.values, LEAST_I32, LARGEST_I32)
    return StoredTensor("I32", _little(given.values, "<i4"))


def _logprobs(name: str, given: CopiedArray) -> StoredTensor:
    if given.bfloat16:
        return StoredTensor("BF16", _little(given.values, "<u2"))
    if given.values.dtype.name in HALF_AND_SINGLE:
        dtype, kept = HALF_AND_SINGLE[given.values.dtype.name]
        return StoredTensor(dtype, _little(given.values, kept))
    if given.values.dtype.kind != "f":
        raise MalformedStep(f"{name} has dtype {_dtype(given)}; accepted are floats.")
    return StoredTensor("F32", _float32(name, given.values))


def _widened(given: CopiedArray) -> NDArray[Any]:
    if given.bfloat16:
        return (given.values.astype(np.uint32) << MISSING_BITS).view(np.float32)
    return given.values


def _float32(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype == np.float32:
        return _little(values, "<f4")
    with np.errstate(over="ignore"):
        single = _little(values, "<f4")
    if not np.array_equal(np.isfinite(values), np.isfinite(single)):
        raise MalformedStep(f"{name} holds numbers beyond the range of float32.")
    return single


def _flags(name: str, values: NDArray[Any]) -> StoredTensor:
    if values.dtype == np.bool_:
        return StoredTensor("BOOL", values)
    if not ((values == 0) | (values == 1)).all():
        raise MalformedStep(f"{name} holds values other than 0 and 1, such as weights.")
    return StoredTensor("U8", _little(values, "u1"))


def _experts(name: str, values: NDArray[Any]) -> StoredTensor:
    least, largest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype, kept in EXPERT_DTYPES.items():
        held = np.iinfo(kept)
        if held.min <= least and largest <= held.max:
            return StoredTensor(dtype, _little(values, kept))
    raise MalformedStep(
        f"{name} holds ids from {least} to {largest}; accepted is {LEAST_I32} to {LARGEST_I32}, "
        "with -1 where no route was captured.",
        remedy="give the ids as the router numbered them, before any offset or hash is applied.",
    )


def _check_range(name: str, values: NDArray[Any], least: int, largest: int) -> None:
    if values.size and (int(values.min()) < least or int(values.max()) > largest):
        raise MalformedStep(f"{name} holds numbers outside {least} to {largest}.")


def _little(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=np.dtype(dtype))


def _dtype(given: CopiedArray) -> str:
    return "bfloat16" if given.bfloat16 else str(given.values.dtype)


CONTENT_TYPE = "application/vnd.safetensors"
#: Large enough that the loop over chunks costs nothing, small enough to be read again at once.
CHUNK_BYTES = 2**20
#: The format asks for eight bytes; the data then starts aligned.
LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class StepBody:
    parts: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def chunks(self) -> Iterator[bytes]:
        """From the start each time: a push may be sent more than once."""
        for part in self.parts:
            for start in range(0, part.nbytes, CHUNK_BYTES):
                yield bytes(part[start : start + CHUNK_BYTES])


def step_body(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, object]) -> StepBody:
    """Metadata values become strings; None is left out."""
    described = {name: str(value) for name, value in metadata.items() if value is not None}
    described["schema_version"] = SCHEMA_VERSION
    header: dict[str, object] = {"__metadata__": dict(sorted(described.items()))}
    parts, end = [], 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.values.nbytes
        shape = list(tensor.values.shape)
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [begin, end]}
        parts.append(tensor.values.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % LENGTH_BYTES)
    return StepBody((memoryview(len(text).to_bytes(LENGTH_BYTES, "little") + text), *parts))


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


def step_tensors(copies: Mapping[str, Copy], rank: int | None = None) -> dict[str, StoredTensor]:
    """rank: of every sequence, where the caller did not give one for each."""
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
    if rank is not None and "rank" not in joined:
        sequences = max(0, joined["cu_seqlens"].values.size - 1)
        joined["rank"] = CopiedArray(np.full(sequences, rank, dtype=np.int64))
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
    # A label of one sequence may come as a tensor without any dimension.
    values = [np.atleast_1d(part.values) for part in parts]
    return CopiedArray(np.concatenate(values), parts[0].bfloat16)


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
