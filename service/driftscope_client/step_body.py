"""A step as the body of a request: each tensor in the dtype that it is sent in, and the bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftscope_client.errors import MalformedStep
from driftscope_client.snapshot import SCHEMA_VERSION, TENSORS, CopiedArray

# A bfloat16 is the upper half of a float32.
MISSING_BITS = np.uint32(16)
HALF_AND_SINGLE = {"float16": ("F16", "<f2"), "float32": ("F32", "<f4")}
LEAST_I32, LARGEST_I32 = -(2**31), 2**31 - 1
#: The first that holds every id is taken; −1, where no route was captured, needs a signed one.
EXPERT_DTYPES = {"U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4"}


#: What torch's losses skip, and so what Hugging Face's labels hold where no token counts.
IGNORED_LABEL = -100


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
        raise MalformedStep(
            f"{name} has dtype {dtype_name(given)}; accepted are integers.",
            remedy=f"give {name} as integers, such as {name}.long() or astype(np.int64).",
        )
    if holds == "flag":
        return _flags(name, given.values)
    if holds == "expert":
        return _experts(name, given.values)
    if name == "cu_seqlens":
        return StoredTensor("I64", _little(given.values, "<i8"))
    _check_range(name, given.values)
    return StoredTensor("I32", _little(given.values, "<i4"))


def _logprobs(name: str, given: CopiedArray) -> StoredTensor:
    if given.bfloat16:
        return StoredTensor("BF16", _little(given.values, "<u2"))
    if given.values.dtype.name in HALF_AND_SINGLE:
        dtype, kept = HALF_AND_SINGLE[given.values.dtype.name]
        return StoredTensor(dtype, _little(given.values, kept))
    if given.values.dtype.kind != "f":
        raise MalformedStep(
            f"{name} has dtype {dtype_name(given)}; accepted are floats.",
            remedy=f"give the log-probabilities as {name}, in nats; token ids go into token_ids.",
        )
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
        raise MalformedStep(
            f"{name} holds numbers beyond the range of float32.",
            remedy=f"look where {name} comes from: no log-probability or advantage is that large.",
        )
    return single


def _flags(name: str, values: NDArray[Any]) -> StoredTensor:
    if values.dtype == np.bool_:
        return StoredTensor("BOOL", values)
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise MalformedStep(
            f"{name} holds {other[0]}; accepted are 0 and 1.",
            remedy="-100 marks labels that are left out: give mask=(labels != -100)."
            if (other == IGNORED_LABEL).all()
            else f"give {name} != 0: which tokens take part, without their weights.",
        )
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


def _check_range(name: str, values: NDArray[Any]) -> None:
    outside = values[(values < LEAST_I32) | (values > LARGEST_I32)]
    if outside.size:
        raise MalformedStep(
            f"{name} holds {outside[0]}, outside {LEAST_I32} to {LARGEST_I32}.",
            remedy=f"give {name} before any offset or hash is applied; int32 holds every real one.",
        )


def _little(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=np.dtype(dtype))


def dtype_name(given: CopiedArray) -> str:
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
