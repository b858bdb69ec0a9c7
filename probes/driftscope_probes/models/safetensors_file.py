"""Safetensors files of our models: header checks, values, and writing in float32 or bfloat16."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import parse_object

# A bfloat16 is the upper half of a float32.
DROPPED_BITS = np.uint32(16)
# Adding just under half a unit, plus the kept part's last bit, makes the cut round to nearest even
# (IEEE 754 section 4.3.1; the same as torch's conversion).
JUST_UNDER_HALF = np.uint32(0x7FFF)


def round_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Nearest bfloat16, ties to even, of finite values; same shape."""
    assert np.isfinite(values).all(), "a NaN's payload could round to infinity"
    bits = np.ascontiguousarray(values).view(np.uint32)
    last_kept_bit = (bits >> DROPPED_BITS) & np.uint32(1)
    rounded: NDArray[np.uint16] = ((bits + JUST_UNDER_HALF + last_kept_bit) >> DROPPED_BITS).astype(
        np.uint16
    )
    return rounded


MasterDtype = Literal["bf16", "fp32"]
FORMAT_NAMES: dict[MasterDtype, str] = {"bf16": "BF16", "fp32": "F32"}
BYTES_PER_VALUE: dict[MasterDtype, int] = {"bf16": 2, "fp32": 4}

LENGTH_BYTES = 8
# The format's own limit is 100 MB; a hundred thousand tensors in one file need about 15 MB.
HEADER_LIMIT = 32 * 1024**2
# Tensors are memory-mapped, so the data has to start at a multiple of the largest element.
ALIGNMENT = 8
# transformers refuses a file that does not say which framework wrote it.
METADATA = {"format": "pt"}
GIT_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class TensorTable:
    """What a file holds, from its header alone."""

    parameters: dict[str, int]  # elements by format name ("BF16", "F32", ...)
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to be written; `values` is called once, when its bytes are due."""

    name: str
    shape: tuple[int, ...]
    values: Callable[[], NDArray[np.float32]]


def read_table(path: Path) -> TensorTable:
    """Header of `path`; raises ModelError if it is not a whole safetensors file."""
    header, _, data_bytes = _read_header(path)
    return _table(path, header, data_bytes)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in its file."""

    file: Path
    format: str  # "BF16", "F32", ...
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int

    def stored(self) -> NDArray[np.uint8]:
        """Its bytes, read when they are used; [end - begin]."""
        if self.begin == self.end:
            return np.zeros(0, np.uint8)
        length = (self.end - self.begin,)
        return np.memmap(self.file, np.uint8, "r", self.begin, length)

    def values(self, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Its values, all exact in float32; of `shape`, or of some of its first axis.

        Raises ModelError for a format that is not among FLOATS.
        """
        if self.format not in FLOATS:
            raise ModelError(
                f"{self.file} holds a tensor in {self.format}.",
                remedy="Use a checkpoint in BF16, F16 or F32.",
            )
        stored = self.stored().view(FLOATS[self.format]).reshape(self.shape)
        chosen = stored[rows] if self.shape else stored
        if self.format == "BF16":
            return (chosen.astype(np.uint32) << DROPPED_BITS).view(np.float32)
        return chosen.astype(np.float32)


#: Formats whose values are exact in float32, and what numpy reads them as.
FLOATS: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of `path` by name. Raises ModelError as `read_table` does."""
    header, start, data_bytes = _read_header(path)
    _table(path, header, data_bytes)
    return {
        name: StoredTensor(
            file=path,
            format=entry["dtype"],
            shape=tuple(entry["shape"]),
            begin=start + entry["data_offsets"][0],
            end=start + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header without its metadata, where the data starts, and how many bytes it has."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(max(LENGTH_BYTES, len(GIT_LFS_POINTER)))
        if start.startswith(GIT_LFS_POINTER):
            raise ModelError(
                f"{path} is a Git LFS pointer, not the weights.",
                remedy="Run `git lfs pull` in the folder, or download the model again.",
            )
        if len(start) < LENGTH_BYTES:
            raise _broken(path, f"it has {size} bytes")
        (length,) = struct.unpack("<Q", start[:LENGTH_BYTES])
        if length > min(HEADER_LIMIT, size - LENGTH_BYTES):
            raise _broken(path, f"its header claims {length:,} bytes")
        stream.seek(LENGTH_BYTES)
        header = parse_object(stream.read(length), f"The header of {path}")
    header.pop("__metadata__", None)
    return header, LENGTH_BYTES + length, size - LENGTH_BYTES - length


def write(path: Path, tensors: Sequence[PlannedTensor], dtype: MasterDtype) -> None:
    """Writes `tensors` in the order given, each rounded to `dtype`; same tensors, same bytes."""
    with path.open("wb") as stream:
        stream.write(_header(tensors, dtype))
        for tensor in tensors:
            values = tensor.values()
            assert values.shape == tensor.shape, (tensor.name, values.shape, tensor.shape)
            assert values.dtype == np.float32, (tensor.name, values.dtype)
            stored = round_to_bfloat16(values) if dtype == "bf16" else values
            stream.write(np.ascontiguousarray(stored).tobytes())


def _header(tensors: Sequence[PlannedTensor], dtype: MasterDtype) -> bytes:
    header: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for tensor in tensors:
        begin, end = end, end + prod(tensor.shape) * BYTES_PER_VALUE[dtype]
        header[tensor.name] = {
            "dtype": FORMAT_NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _table(path: Path, header: dict[str, Any], data_bytes: int) -> TensorTable:
    parameters: dict[str, int] = {}
    last_byte = 0
    for name, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sizes_known = all(isinstance(size, int) and size >= 0 for size in shape)
            well_formed = isinstance(dtype, str) and sizes_known and 0 <= begin <= end
        except (KeyError, TypeError, ValueError):
            well_formed = False
        if not well_formed:
            raise _broken(path, f"its entry for {name[:80]!r} is malformed")
        parameters[dtype] = parameters.get(dtype, 0) + prod(shape)
        last_byte = max(last_byte, end)
    if last_byte != data_bytes:
        raise _broken(path, f"its header describes {last_byte:,} bytes, {data_bytes:,} are there")
    return TensorTable(parameters, tuple(header))


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not a complete safetensors file: {why}.",
        remedy="Copy or download the file again; an interrupted transfer looks like this.",
    )
